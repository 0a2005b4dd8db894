"""Pooling that is fast on a CPU as well as on an accelerator."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from pcamjax.ops import compiled, xla_cpu
from pcamjax.ops.convolution import convolve_depthwise


def max_pool(x: Float[Array, "b h w c"], *, window: int = 2, stride: int | None = None,
             padding: Literal["SAME", "VALID"] = "VALID") -> Float[Array, "b oh ow c"]:
    """The maximum of each window, by default of windows side by side; what lies beyond the edges counts for nothing.

    The gradient goes to the first maximum of a window in row-major order, as `jax.lax.reduce_window`'s does.
    Differentiable in reverse mode only.
    """
    stride = stride or window
    pads = lax.padtype_to_pads(x.shape[1:3], (window, window), (stride, stride), padding)
    return _max_pool(x, window, stride, tuple(pads))


def average_pool(x: Float[Array, "b h w c"], *, window: int, stride: int, padding: Literal["SAME", "VALID"] = "VALID"
                 ) -> Float[Array, "b oh ow c"]:
    """The mean over each window; what lies beyond the edges is left out of it."""
    size, strides = (window, window), (stride, stride)

    def native(x):
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, (1, *size, 1), (1, *strides, 1), padding)

    def on_cpu(x):  # XLA:CPU adds up windows one value at a time
        return convolve_depthwise(x, jnp.ones((*size, 1, x.shape[-1]), x.dtype), strides=strides, padding=padding)

    ones = np.ones((1, *x.shape[1:3], 1), x.dtype)
    return lax.platform_dependent(x, cpu=on_cpu, default=native) / native(ones)


def _native(x, window, stride, pads):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, window, window, 1), (1, stride, stride, 1),
                             ((0, 0), *pads, (0, 0)))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x, window, stride, pads):
    def on_cpu(x):
        shape = jax.eval_shape(native, x).shape
        if not (_is_compiled(x) and all(shape)):
            return native(x)
        return compiled.call("pcamjax_max_pool", shape, x, **_geometry(window, stride, pads))

    native = partial(_native, window=window, stride=stride, pads=pads)
    return lax.platform_dependent(x, cpu=on_cpu, default=native)


def _max_pool_forward(x, window, stride, pads):
    return _max_pool(x, window, stride, pads), x


def _max_pool_backward(window, stride, pads, x, gradient):
    def native(x, gradient):
        return jax.vjp(partial(_native, window=window, stride=stride, pads=pads), x)[1](gradient)[0]

    def on_cpu(x, gradient):
        if _is_compiled(x) and gradient.size:
            return compiled.call("pcamjax_max_pool_by_input", x.shape, x, gradient, **_geometry(window, stride, pads))
        if stride == window and pads == ((0, 0), (0, 0)):
            return xla_cpu.max_pool_gradient(x, gradient, window)
        return native(x, gradient)

    return (lax.platform_dependent(x, gradient, cpu=on_cpu, default=native),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _is_compiled(x):
    return x.dtype == jnp.float32 and x.size and x.shape[-1] >= compiled.LANES and compiled.available()


def _geometry(window, stride, pads):
    return {"window": window, "stride": stride, "top": pads[0][0], "left": pads[1][0]}
