"""Grad-CAM: where in an image a score comes from (Selvaraju et al., arXiv 1610.02391, equations 1 and 2)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from pcamjax.errors import InputError
from pcamjax.explain.layers import apply_with_layer

Target = int | str | Callable[[Float[Array, "b classes"]], Float[Array, " b"]]


def grad_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
             layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """One map per image: a layer's channels, weighted by their mean gradients and summed; negatives are cut.

    Pure, so that it can be jitted with `module`, `target` and `layer` static.

    Args:
      x: preprocessed images.
      target: the score to explain: a class (its logit), "margin" (logit 1 minus logit 0), or a function from
        logits [B,classes] to [B].
      layer: the layer to look at; by default the output of `features`, where `head` alone is differentiated.
    Returns:
      values of at least 0 in the unit of the score, at the layer's resolution.
    Raises:
      InputError: an unknown target or layer, or a layer whose output is not a map.
    """
    if layer is None:
        activation = module.apply(variables, x, method="features")
        gradient = jax.grad(lambda a: _score(module.apply(variables, a, method="head"), target).sum()
                            )(activation)
    else:
        def score(delta: Array) -> tuple[Array, Array]:
            logits, output = apply_with_layer(module, variables, x, layer, delta)
            return _score(logits, target).sum(), output

        output = jax.eval_shape(lambda: apply_with_layer(module, variables, x, layer)[1])
        if output.ndim != 4:
            raise InputError(f"layer {layer!r} puts out shape {output.shape}, not maps [B,h,w,C]: "
                             "choose an earlier one")
        gradient, activation = jax.grad(score, has_aux=True)(jnp.zeros(output.shape, output.dtype))
    weights = gradient.mean((1, 2), keepdims=True)
    return nn.relu((weights * activation).sum(-1))


def _score(logits: Float[Array, "b classes"], target: Target) -> Float[Array, " b"]:
    if callable(target):
        return target(logits)
    if target == "margin":
        return logits[:, 1] - logits[:, 0]
    if target not in range(logits.shape[1]):
        raise InputError(f"Grad-CAM target {target!r}: expected a class from 0 to {logits.shape[1] - 1}, "
                         "'margin' or a function of the logits")
    return logits[:, target]


def upsample(maps: Float[Array, "b h w"], size: int) -> Float[Array, "b size size"]:
    """The maps at the image's resolution, bilinearly: each cell covers its share of the image."""
    return jax.image.resize(maps, (maps.shape[0], size, size), "bilinear")


def normalise(maps: Float[Array, "b h w"]) -> tuple[Float[Array, "b h w"], Bool[Array, " b"]]:
    """Each map divided by its maximum, and whether it is zero everywhere.

    A map of zeros (nothing in the layer speaks for the target) stays as it is, and is told by its flag.

    Args:
      maps: values of at least 0.
    Returns:
      the maps in 0..1; one flag per map.
    """
    peaks = maps.max((1, 2), keepdims=True)
    return maps / jnp.where(peaks > 0, peaks, 1), (peaks == 0)[:, 0, 0]
