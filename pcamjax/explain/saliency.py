"""Maps of pixels, by their gradients or by covering them: what class activation maps are held against.

Arguments and `target` as in `cams`; `layer` has no meaning here and must stay None. A pixel that is left out gets its
image's mean colour, so that the same is said of networks with different preprocessing. Raw values are of at least 0.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.explain.targets import Target, target_score

SAMPLES = 16  # noisy copies of SmoothGrad
NOISE = 0.15  # their standard deviation, of an image's range of values (the paper: 0.1 to 0.2)
STEPS = 32  # on the way of integrated gradients
WINDOW, STRIDE = 16, 8  # of occlusion, in pixels: half a label-bearing centre square


def input_gradient(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
                   layer: str | None = None) -> Float[Array, "b h w"]:
    """The largest absolute gradient of a pixel's colours (Simonyan et al., arXiv 1312.6034)."""
    _no_layer(layer)
    return jnp.abs(_gradient(module, variables, x, target)).max(-1)


def smooth_grad(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
                layer: str | None = None, seed: int = 0) -> Float[Array, "b h w"]:
    """As `input_gradient`, of the mean gradient of noisy copies (Smilkov et al., arXiv 1706.03825).

    An image's noise is the same whatever batch it is in.
    """
    _no_layer(layer)
    width = NOISE * (x.max((1, 2, 3), keepdims=True) - x.min((1, 2, 3), keepdims=True))

    def noisy(key: Array) -> Float[Array, "b h w c"]:
        return _gradient(module, variables, x + width * jax.random.normal(key, x.shape[1:])[None], target)

    keys = jax.random.split(jax.random.key(seed), SAMPLES)
    return jnp.abs(jax.lax.map(noisy, keys).mean(0)).max(-1)


def integrated_gradients(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *,
                         target: Target, layer: str | None = None) -> Float[Array, "b h w"]:
    """What a pixel's colours add to the score on the way from the mean colour, where that is positive."""
    _no_layer(layer)
    return nn.relu(attributions(module, variables, x, target=target).sum(-1))


def attributions(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target
                 ) -> Float[Array, "b h w c"]:
    """The share of every value in the score's change from a plain image of the mean colour to `x`, signed.

    They add up to that change but for the rule's error (Sundararajan et al., arXiv 1703.01365; Gauss-Legendre rule).
    """
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)  # for the interval from -1 to 1
    rule = jnp.asarray((nodes + 1) / 2, x.dtype), jnp.asarray(weights / 2, x.dtype)
    plain = _plain(x)

    def along(total: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        node, weight = step
        return total + weight * _gradient(module, variables, plain + node * (x - plain), target), None

    return jax.lax.scan(along, jnp.zeros_like(x), rule)[0] * (x - plain)


def occlusion(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
              layer: str | None = None) -> Float[Array, "b h w"]:
    """How far the score falls when a square is covered, averaged over the squares that a pixel lies in.

    Squares of WINDOW pixels every STRIDE, cut at the edges, in the image's mean colour (Zeiler & Fergus, arXiv
    1311.2901). In the unit of the score; it takes a forward pass per square.
    """
    _no_layer(layer)
    covers = [jnp.abs(jnp.arange(size)[None] - jnp.arange(0, size + 1, STRIDE)[:, None] + 0.5) < WINDOW / 2
              for size in x.shape[1:3]]
    whole, plain = target_score(module.apply(variables, x), target), _plain(x)

    def falls(row: Array) -> Float[Array, "columns b"]:
        def fall(column: Array) -> Float[Array, " b"]:
            covered = jnp.where((row[:, None] & column[None, :])[None, :, :, None], plain, x)
            return whole - target_score(module.apply(variables, covered), target)
        return jax.lax.map(fall, covers[1])

    rows, columns = (cover.astype(x.dtype) for cover in covers)
    total = jnp.einsum("rcb,rh,cw->bhw", jax.lax.map(falls, covers[0]), rows, columns)
    return nn.relu(total / (rows.sum(0)[:, None] * columns.sum(0)[None, :])[None])


def _gradient(module: nn.Module, variables: Mapping[str, Any], x: Array, target: Target) -> Array:
    return jax.grad(lambda x: target_score(module.apply(variables, x), target).sum())(x)


def _plain(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)


def _no_layer(layer: str | None) -> None:
    if layer is not None:
        raise InputError(f"layer {layer!r}: this method looks at the pixels; leave the layer out")
