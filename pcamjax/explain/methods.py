"""The methods by name, and what is done to the raw maps of any of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.explain import cams, saliency
from pcamjax.explain.targets import Target


class Method(NamedTuple):
    """A method: its name in figures and its function, and whether that looks at a layer or at the pixels."""

    title: str
    function: Callable[..., Float[Array, "b h w"]]
    of_layer: bool = True


METHODS = {
    "grad_cam": Method("Grad-CAM", cams.grad_cam),
    "grad_cam_plus_plus": Method("Grad-CAM++", cams.grad_cam_plus_plus),
    "hires_cam": Method("HiResCAM", cams.hires_cam),
    "layer_cam": Method("LayerCAM", cams.layer_cam),
    "xgrad_cam": Method("XGrad-CAM", cams.xgrad_cam),
    "eigen_cam": Method("Eigen-CAM", cams.eigen_cam),
    "score_cam": Method("Score-CAM", cams.score_cam),
    "ablation_cam": Method("Ablation-CAM", cams.ablation_cam),
    "input_gradient": Method("input gradient", saliency.input_gradient, of_layer=False),
    "smooth_grad": Method("SmoothGrad", saliency.smooth_grad, of_layer=False),
    "integrated_gradients": Method("integrated gradients", saliency.integrated_gradients, of_layer=False),
    "occlusion": Method("occlusion", saliency.occlusion, of_layer=False),
}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
      InputError: there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"explanation method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


def explain(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, method: str = "grad_cam",
            target: Target = 1, layers: Sequence[str] = ()) -> tuple[Float[Array, "b h w"], Float[Array, " b"]]:
    """Each image's map at its own size in 0..1, and its largest raw value, by which it was divided.

    The maps of several layers, each stretched to 0..1, are averaged. Pure, to be jitted with all but `variables` and
    `x` static.

    Args:
      x: preprocessed images.
      layers: names as in `layers.layer_names`; without one, methods that look at a layer take the seam between the
        module's `features` and `head`. Methods that look at the pixels take none.
    Raises:
      InputError: an unknown method, target or layer.
    """
    found = find_method(method)
    maps = [found.function(module, variables, x, target=target, layer=layer)
            for layer in (layers if found.of_layer and layers else [None])]
    if len(maps) > 1:
        maps = [normalise(one)[0] for one in maps]
    return normalise(sum(upsample(one, x.shape[1:3]) for one in maps) / len(maps))


def upsample(maps: Float[Array, "b h w"], shape: tuple[int, int]) -> Float[Array, "b height width"]:
    """The maps at the image's resolution, bilinearly: each cell covers its share of the image."""
    return jax.image.resize(maps, (len(maps), *shape), "bilinear")


def normalise(maps: Float[Array, "b h w"]) -> tuple[Float[Array, "b h w"], Float[Array, " b"]]:
    """Each map divided by its maximum, and these maxima.

    A map of zeros (nothing speaks for the target) stays as it is, and is told by its maximum of 0.

    Args:
      maps: values of at least 0.
    Returns:
      the maps in 0..1; one maximum a map.
    """
    peaks = maps.max((1, 2))
    return maps / jnp.where(peaks > 0, peaks, 1)[:, None, None], peaks
