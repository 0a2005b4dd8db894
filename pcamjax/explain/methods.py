"""The methods by name, and what is done to the raw maps of any of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.explain import cams, saliency
from pcamjax.explain.names import OF_LAYERS, OF_PIXELS
from pcamjax.explain.targets import Target

METHODS: dict[str, Callable[..., Float[Array, "b h w"]]] = {
    name: getattr(module, name) for module, names in ((cams, OF_LAYERS), (saliency, OF_PIXELS)) for name in names}


def find_method(name: str) -> Callable[..., Float[Array, "b h w"]]:
    """The function of a name.

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
    draw = find_method(method)
    maps = [draw(module, variables, x, target=target, layer=layer)
            for layer in (layers if method in OF_LAYERS and layers else [None])]
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
