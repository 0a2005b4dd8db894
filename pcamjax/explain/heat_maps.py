"""Heat maps of a trained run at the size of its patches."""

import functools

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from pcamjax.explain.gradcam import Target, grad_cam, normalise, upsample
from pcamjax.inference.predict import Run
from pcamjax.models import model_spec


def heat_maps(run: Run, images: UInt8[np.ndarray, "n 96 96 3"], *, target: Target = 1, layer: str | None = None,
              batch_size: int = 32) -> tuple[Float32[np.ndarray, "n 96 96"], Bool[np.ndarray, " n"]]:
    """Grad-CAM of each image, each map divided by its maximum, and which maps are zero everywhere.

    `target` and `layer` are those of `grad_cam`; by default the logit of metastasis at the network's `cam_layer`.

    Raises:
      InputError: an unknown target or layer, or a layer whose output is not a map.
    """
    @jax.jit
    def batch_maps(x: Float[jax.Array, "b 96 96 3"]) -> tuple[jax.Array, jax.Array]:
        return normalise(upsample(explain(x=x), images.shape[1]))

    explain = functools.partial(grad_cam, run.network, run.variables, target=target,
                                layer=layer or model_spec(run.config.model.name).cam_layer)
    maps, zero = [], []
    for start in range(0, len(images), batch_size):
        piece = images[start:start + batch_size]
        padded = np.concatenate([piece, np.zeros((batch_size - len(piece), *piece.shape[1:]), np.uint8)])
        batch, flags = batch_maps(run.preprocess(padded))
        maps.append(np.asarray(batch)[:len(piece)])
        zero.append(np.asarray(flags)[:len(piece)])
    return np.concatenate(maps), np.concatenate(zero)
