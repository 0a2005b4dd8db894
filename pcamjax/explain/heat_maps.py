"""Heat maps of a trained run at the size of its patches."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, UInt8

from pcamjax.explain.methods import explain
from pcamjax.explain.names import OF_LAYERS
from pcamjax.explain.targets import Target, target_score
from pcamjax.inference.predict import Run
from pcamjax.models import model_spec
from pcamjax.training.step import make_forward


class HeatMaps(NamedTuple):
    """Maps in 0..1, and the largest raw value of each: `maps * peaks` is what the method computed."""

    maps: Float32[np.ndarray, "n h w"]
    peaks: Float32[np.ndarray, " n"]

    @property
    def is_zero(self) -> Bool[np.ndarray, " n"]:
        """Which maps are zero everywhere: nothing speaks for the target."""
        return self.peaks == 0


def heat_maps(run: Run, images: UInt8[np.ndarray, "n h w 3"], *, method: str = "grad_cam", target: Target = 1,
              layers: Sequence[str] = (), batch_size: int = 32) -> HeatMaps:
    """The maps of images in memory.

    `method`, `target` and `layers` are those of `methods.explain`; by default Grad-CAM of the logit of metastasis at
    the network's `cam_layer`.

    Raises:
      InputError: an unknown method, target or layer, or a layer whose output is not a map.
    """
    compute = explainer(run.config.model.name, method=method, target=target, layers=layers)
    return in_batches(functools.partial(compute, run.variables), images, batch_size)


def explainer(model_name: str, *, method: str = "grad_cam", target: Target = 1, layers: Sequence[str] = ()
              ) -> Callable[[dict[str, Any], UInt8[Array, "b h w 3"]], tuple[Array, Array]]:
    """The compiled function from a network's variables and a batch of images to maps in 0..1 and their peaks."""
    spec = model_spec(model_name)
    layers = tuple(layers) or ((spec.cam_layer,) if method in OF_LAYERS else ())
    network = spec.build()

    @jax.jit
    def compute(variables: dict[str, Any], images: Array) -> tuple[Array, Array]:
        x = spec.preprocess(images.astype(np.float32))
        return explain(network, variables, x, method=method, target=target, layers=layers)

    return compute


def scorer(model_name: str) -> Callable[[dict[str, Any], UInt8[Array, "b h w 3"]], Float[Array, " b"]]:
    """The compiled function from a network's variables and a batch of images to the probability of metastasis."""
    forward = make_forward(model_name)
    return jax.jit(lambda variables, images: target_score(forward(variables, images), "probability"))


def raw_maps(model_name: str, *, method: str, target: Target = 1, layers: Sequence[str] = (), batch_size: int = 32
             ) -> Callable[[dict[str, Any], UInt8[np.ndarray, "n h w 3"]],
                           tuple[Float32[np.ndarray, "n h w"], Bool[np.ndarray, " n"]]]:
    """The function from a network's variables and images to what a method computes, and which maps are zero.

    It is the `Method` of `sanity` and `comparison`.
    """
    compute = explainer(model_name, method=method, target=target, layers=layers)

    def made(variables: dict[str, Any], images: UInt8[np.ndarray, "n h w 3"]) -> tuple[np.ndarray, np.ndarray]:
        maps = in_batches(functools.partial(compute, variables), images, batch_size)
        return maps.maps * maps.peaks[:, None, None], maps.is_zero

    return made


def in_batches(compute: Callable[[Array], tuple[Array, Array]], images: UInt8[np.ndarray, "n h w 3"],
               batch_size: int) -> HeatMaps:
    """What `compute` makes of the images, in batches of one size, the last filled up."""
    maps = np.empty(images.shape[:3], np.float32)
    peaks = np.empty(len(images), np.float32)
    for start in range(0, len(images), batch_size):
        piece = images[start:start + batch_size]
        filled = np.concatenate([piece, np.zeros((batch_size - len(piece), *piece.shape[1:]), piece.dtype)])
        batch_maps, batch_peaks = compute(filled)
        maps[start:start + len(piece)] = np.asarray(batch_maps)[:len(piece)]
        peaks[start:start + len(piece)] = np.asarray(batch_peaks)[:len(piece)]
    return HeatMaps(maps, peaks)
