"""Class activation maps: a layer's channels, summed with weights that say how much each speaks for a score.

Each function takes a linen module, its variables and preprocessed images, and gives one raw map per image at the
layer's resolution: values of at least 0, of which only the ratios within a map mean something unless it says otherwise.
All are pure, to be jitted with `module`, `target` and `layer` static. `target` is one of `targets`, `layer` a name as
in `layers.split_at`; those two say what is raised.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.explain.layers import split_at
from pcamjax.explain.targets import Target, target_score

TINY = 1e-6  # beside sums of activations: a channel that is silent has no weight


def grad_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
             layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """Channels weighted by their mean gradients, in the unit of the score (Selvaraju et al., arXiv 1610.02391)."""
    maps, gradient = _maps_and_gradient(module, variables, x, target, layer)
    return _weighted(maps, gradient.mean((1, 2)))


def grad_cam_plus_plus(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
                       layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """Channels weighted by positive gradients, each position by its share (Chattopadhay et al., arXiv 1710.11063).

    The second and third derivatives are those of exp(score), as in the paper: powers of the gradient.
    """
    maps, gradient = _maps_and_gradient(module, variables, x, target, layer)
    shares = gradient**2 / (2 * gradient**2 + maps.sum((1, 2), keepdims=True) * gradient**3 + TINY)
    return _weighted(maps, (shares * nn.relu(gradient)).sum((1, 2)))


def hires_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
              layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """Channels times gradients at each position, summed (Draelos & Carin, arXiv 2011.08891)."""
    maps, gradient = _maps_and_gradient(module, variables, x, target, layer)
    return nn.relu((gradient * maps).sum(-1))


def layer_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
              layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """As HiResCAM, of the positive gradients alone (Jiang et al., IEEE TIP 2021, 10.1109/TIP.2021.3089943)."""
    maps, gradient = _maps_and_gradient(module, variables, x, target, layer)
    return nn.relu((nn.relu(gradient) * maps).sum(-1))


def xgrad_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
              layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """Channels weighted by their gradients averaged where they are active (Fu et al., arXiv 2008.02312)."""
    maps, gradient = _maps_and_gradient(module, variables, x, target, layer)
    return _weighted(maps, (gradient * maps).sum((1, 2)) / (maps.sum((1, 2)) + TINY))


def eigen_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *,
              target: Target | None = None, layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """The first principal component of the channels over positions (Muhammad & Yeasin, arXiv 2008.00299).

    It asks for no score: `target` changes nothing. Of its two signs it has the one that goes with the sum of channels.
    """
    maps, _ = split_at(module, variables, x, layer)
    rows = maps.reshape(len(maps), -1, maps.shape[-1])
    rows = rows - rows.mean(1, keepdims=True)
    left, singular, _ = jnp.linalg.svd(rows, full_matrices=False)
    component = left[:, :, 0] * singular[:, :1]
    sign = jnp.where((component * rows.sum(-1)).sum(1, keepdims=True) < 0, -1, 1)
    return nn.relu(sign * component).reshape(maps.shape[:3])


def score_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
              layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """Channels weighted by the score of the image seen through them (Wang et al., arXiv 1910.01279).

    Each channel, enlarged and stretched to 0..1, multiplies the image; the weights are the softmax of the scores over
    the channels. It takes a forward pass per channel.
    """
    maps, _ = split_at(module, variables, x, layer)
    enlarge = tuple(_between_corners(small, large) for small, large in zip(maps.shape[1:3], x.shape[1:3], strict=True))

    def score_through(channel: Float[Array, "b h2 w2"]) -> Float[Array, " b"]:
        seen = jnp.einsum("Hh,bhw,Ww->bHW", enlarge[0], channel, enlarge[1])
        low, high = seen.min((1, 2), keepdims=True), seen.max((1, 2), keepdims=True)
        masked = x * ((seen - low) / (high - low + 1e-8))[..., None]
        return target_score(module.apply(variables, masked), target)

    scores = jax.lax.map(score_through, jnp.moveaxis(maps, -1, 0))
    return _weighted(maps, jax.nn.softmax(scores, axis=0).T)


def ablation_cam(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], *, target: Target,
                 layer: str | None = None) -> Float[Array, "b h2 w2"]:
    """Channels weighted by how much the score falls without them (Desai & Ramaswamy, WACV 2020).

    The fall is relative to the size of the score: divided by the score itself, as in the paper, a negative score would
    turn every sign. It takes a pass from the layer to the logits per channel.
    """
    maps, rest = split_at(module, variables, x, layer)
    whole = target_score(rest(maps), target)

    def score_without(channel: Array) -> Float[Array, " b"]:
        kept = jnp.arange(maps.shape[-1]) != channel
        return target_score(rest(jnp.where(kept.reshape(1, 1, 1, -1), maps, 0)), target)

    without = jax.lax.map(score_without, jnp.arange(maps.shape[-1])).T
    size = jnp.abs(whole)[:, None]
    return _weighted(maps, (whole[:, None] - without) / jnp.where(size > 0, size, 1))


def _maps_and_gradient(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], target: Target,
                       layer: str | None) -> tuple[Float[Array, "b h2 w2 c2"], Float[Array, "b h2 w2 c2"]]:
    """What the layer puts out, and the gradient of each image's score by it."""
    maps, rest = split_at(module, variables, x, layer)
    return maps, jax.grad(lambda maps: target_score(rest(maps), target).sum())(maps)


def _weighted(maps: Float[Array, "b h w c"], weights: Float[Array, "b c"]) -> Float[Array, "b h w"]:
    return nn.relu(jnp.einsum("bhwc,bc->bhw", maps, weights))


def _between_corners(small: int, large: int) -> Float[Array, "large small"]:
    """Linear interpolation as a matrix, by which the first and last of `large` values are those of `small`."""
    position = jnp.linspace(0, small - 1, large)
    return nn.relu(1 - jnp.abs(position[:, None] - jnp.arange(small)[None]))
