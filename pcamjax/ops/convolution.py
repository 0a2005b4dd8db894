"""2-D convolution and max-pooling that are fast on a CPU as well as on an accelerator.

Everything here computes what `jax.lax` computes, and on a GPU or TPU it is `jax.lax`. On a CPU the passes
that XLA (JAX 0.10.2) is slow at take another form.
"""

from functools import partial
from itertools import product
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = Literal["SAME", "VALID"]

# Positions gathered for one matrix product: their patches should stay in a core's cache.
BLOCK_POSITIONS = 1024


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c f"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding,
) -> Float[Array, "b oh ow f"]:
    """Cross-correlate `x` with `kernel` as `jax.lax.conv_general_dilated` does.

    With stride 1 it is differentiable in reverse mode only (`jax.grad`, not `jax.jvp`).
    """
    if _is_pointwise(kernel):  # it reads every `strides`-th position and no other
        return _convolve(x[:, :: strides[0], :: strides[1]], kernel, padding)
    if tuple(strides) == (1, 1):
        return _convolve(x, kernel, padding)
    return _native(x, kernel, padding, strides)


def convolve_depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding,
) -> Float[Array, "b oh ow c"]:
    """Cross-correlate each channel of `x` with its own kernel, as `jax.lax.conv_general_dilated` in `c` groups does.

    On a CPU, where XLA's grouped convolution is a scalar loop, it is a sum of shifted products. Differentiable in
    reverse mode only.
    """
    return _depthwise(x, kernel, tuple(strides), padding)


def max_pool(x: Float[Array, "b h w c"], *, window: int = 2) -> Float[Array, "b oh ow c"]:
    """Maximum of each non-overlapping window; trailing rows and columns that fill none are dropped (VALID).

    The gradient goes to the first maximum of a window in row-major order, as `jax.lax.reduce_window`'s does.
    """
    return _max_pool(x, window)


def _native(x, kernel, padding, strides=(1, 1)):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, padding):
    native = partial(_native, padding=padding)
    return lax.platform_dependent(
        x, kernel, cpu=_pointwise if _is_pointwise(kernel) else native, default=native
    )


def _convolve_forward(x, kernel, padding):
    """The forward pass of training; inference, which XLA fuses well, stays with `_convolve` itself."""

    def on_cpu(x, kernel):
        if _is_pointwise(kernel):
            return _pointwise(x, kernel)
        if padding == "SAME":
            return _native(x, kernel, padding)
        # Without padding XLA's kernel took 2 to 4 times as long; one row too many at the bottom is cheaper.
        return _native(x, kernel, ((0, 1), (0, 0)))[:, :-1]

    y = lax.platform_dependent(x, kernel, cpu=on_cpu, default=partial(_native, padding=padding))
    return y, (x, kernel)


def _convolve_backward(padding, residuals, gradient):
    def native(x, kernel, gradient):
        return jax.vjp(partial(_native, padding=padding), x, kernel)[1](gradient)

    def on_cpu(x, kernel, gradient):
        if _is_pointwise(kernel):
            return jax.vjp(_pointwise, x, kernel)[1](gradient)
        by_input, _ = native(x, kernel, gradient)
        pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (1, 1), padding)
        return by_input, _kernel_gradient(jnp.pad(x, ((0, 0), *pads, (0, 0))), gradient, kernel.shape)

    return lax.platform_dependent(*residuals, gradient, cpu=on_cpu, default=native)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _is_pointwise(kernel):
    return kernel.shape[:2] == (1, 1)


def _pointwise(x, kernel):
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def _kernel_gradient(x, gradient, kernel_shape):
    """Sum of (patches of `x`)^T @ `gradient` over blocks of rows: im2col in pieces that fit the cache."""
    kh, kw, c, f = kernel_shape
    b, h, w, _ = gradient.shape
    images = _largest_divisor(b, BLOCK_POSITIONS // w)
    rows = _largest_divisor(h, BLOCK_POSITIONS // (w * images))

    def block(index):
        image, row = index // (h // rows) * images, index % (h // rows) * rows
        start = (image, row, 0, 0)
        band = lax.dynamic_slice(x, start, (images, rows + kh - 1, *x.shape[2:]))
        taps = [band[:, i : i + rows, j : j + w] for i, j in product(range(kh), range(kw))]
        patches = jnp.concatenate(taps, axis=-1).reshape(-1, kh * kw * c)
        return patches.T @ lax.dynamic_slice(gradient, start, (images, rows, w, f)).reshape(-1, f)

    blocks = (b // images) * (h // rows)
    total = lax.fori_loop(1, blocks, lambda index, total: total + block(index), block(0))
    return total.reshape(kernel_shape)


def _largest_divisor(number, limit):
    return next(d for d in range(max(1, min(number, limit)), 0, -1) if number % d == 0)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, strides, padding):
    native = partial(_native_depthwise, strides=strides, padding=padding)
    return lax.platform_dependent(x, kernel, cpu=partial(_shifted_products, strides=strides, padding=padding),
                                  default=native)


def _depthwise_forward(x, kernel, strides, padding):
    return _depthwise(x, kernel, strides, padding), (x, kernel)


def _depthwise_backward(strides, padding, residuals, gradient):
    def native(x, kernel, gradient):
        return jax.vjp(partial(_native_depthwise, strides=strides, padding=padding), x, kernel)[1](gradient)

    def on_cpu(x, kernel, gradient):
        size, pads = kernel.shape[:2], lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))

        def add_image(index, sums):
            image, slope = (lax.dynamic_index_in_dim(array, index) for array in (padded, gradient))
            taps = _taps(image, size, strides, gradient.shape[1:3])
            return [total + tap * slope for total, tap in zip(sums, taps, strict=True)]

        # By the kernel: the images are added up first, for XLA sums over the positions of a batch one by one.
        zeros = [jnp.zeros_like(gradient[:1])] * (size[0] * size[1])
        sums = lax.fori_loop(0, len(x), add_image, zeros)
        by_kernel = jnp.stack([total.sum((0, 1, 2)) for total in sums]).reshape(kernel.shape)
        # By the input: the gradient spread out by the strides, with the kernel turned round.
        edges = [(0, 0, 0), *((k - 1 - before, n + before - 1 - (out - 1) * stride, stride - 1) for k, n, out, stride,
                              (before, _) in zip(size, x.shape[1:3], gradient.shape[1:3], strides, pads, strict=True)),
                 (0, 0, 0)]
        spread = lax.pad(gradient, jnp.zeros((), gradient.dtype), edges)
        return _shifted_products(spread, kernel[::-1, ::-1], (1, 1), "VALID"), by_kernel

    return lax.platform_dependent(*residuals, gradient, cpu=on_cpu, default=native)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _native_depthwise(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    feature_group_count=x.shape[-1])


def _shifted_products(x, kernel, strides, padding):
    pads = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    out = [(n - k) // stride + 1 for n, k, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)]
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return sum(tap * weight for tap, weight in zip(_taps(x, kernel.shape[:2], strides, out), weights, strict=True))


def _taps(x, size, strides, out):
    """What each place of a kernel of `size` sees of the padded `x`: [b,*out,c] each, in row-major order."""
    (rows, columns), (down, right) = out, strides
    return [x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
            for i, j in product(range(size[0]), range(size[1]))]


def _native_max_pool(x, window):
    shape = (1, window, window, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, shape, shape, "VALID")


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x, window):
    return _native_max_pool(x, window)


def _max_pool_forward(x, window):
    return _max_pool(x, window), x


def _max_pool_backward(window, x, gradient):
    def native(x, gradient):
        return jax.vjp(partial(_native_max_pool, window=window), x)[1](gradient)[0]

    def on_cpu(x, gradient):
        b, h, w, c = gradient.shape
        tiles = x[:, : h * window, : w * window].reshape(b, h, window, w, window, c)
        # The places of a window are compared with one another, never with the forward pass' maximum: XLA may compute
        # x anew here and round it differently, and then nothing would equal that maximum. The barrier makes it decide
        # each winner once.
        largest, winner = tiles[:, :, 0, :, 0], jnp.zeros((b, h, w, c), jnp.int8)
        for place in range(1, window * window):
            candidate = tiles[:, :, place // window, :, place % window]
            winner = jnp.where(candidate > largest, jnp.int8(place), winner)
            largest = jnp.maximum(candidate, largest)
        winner = lax.optimization_barrier(winner)
        shares = jnp.stack([jnp.where(winner == place, gradient, 0) for place in range(window * window)], axis=3)
        shares = shares.reshape(b, h, w, window, window, c).transpose(0, 1, 3, 2, 4, 5)
        shares = shares.reshape(b, h * window, w * window, c)
        return jnp.pad(shares, ((0, 0), (0, x.shape[1] - h * window), (0, x.shape[2] - w * window), (0, 0)))

    return (lax.platform_dependent(x, gradient, cpu=on_cpu, default=native),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
