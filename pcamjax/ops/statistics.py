"""Moments of maps and their normalisation, as BatchNorm needs them, fast on a CPU as well as on an accelerator.

XLA:CPU sums over positions in one thread and so takes longer than to read the map from memory; here the sums are the
compiled kernels' work where they are there. Differentiable in reverse mode only.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pcamjax.ops import compiled


@jax.custom_vjp
def moments(x: Float[Array, "... c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Means of the values and of their squares, channel by channel."""
    first, second = _channel_sums(x, x, jnp.zeros_like(x, shape=x.shape[-1:]))
    positions = x.size // x.shape[-1]
    return first / positions, second / positions


def _moments_forward(x):
    return moments(x), x


def _moments_backward(x, slopes):
    mean, square = (_along_channels(slope, x) for slope in slopes)
    return ((mean + 2 * square * x) / (x.size // x.shape[-1]),)


moments.defvjp(_moments_forward, _moments_backward)


@jax.custom_vjp
def normalise(x: Float[Array, "... c"], mean: Float[Array, " c"], scale: Float[Array, " c"], bias: Float[Array, " c"]
              ) -> Float[Array, "... c"]:
    """(x - mean) * scale + bias, channel by channel."""
    mean, scale, bias = (_along_channels(value, x) for value in (mean, scale, bias))
    return (x - mean) * scale + bias


def _normalise_forward(x, mean, scale, bias):
    return normalise(x, mean, scale, bias), (x, mean, scale)


def _normalise_backward(residuals, slope):
    x, mean, scale = residuals
    by_bias, by_scale = _channel_sums(slope, x, mean)
    return slope * _along_channels(scale, x), -scale * by_bias, by_scale, by_bias


normalise.defvjp(_normalise_forward, _normalise_backward)


def _along_channels(value, x):
    return value.reshape((1,) * (x.ndim - 1) + (-1,))


def _channel_sums(x, y, shift):
    """Sums over positions of x and of x * (y - shift)."""
    def by_xla(x, y, shift):
        axes = tuple(range(x.ndim - 1))
        return jnp.stack([x.sum(axes), (x * (y - _along_channels(shift, y))).sum(axes)])

    def on_cpu(x, y, shift):
        if (x.dtype == y.dtype == shift.dtype == jnp.float32 and x.size and x.shape[-1] >= compiled.LANES
                and compiled.available()):
            return compiled.call("pcamjax_channel_sums", (2, x.shape[-1]), x, y, shift)
        return by_xla(x, y, shift)

    return lax.platform_dependent(x, y, shift, cpu=on_cpu, default=by_xla)
