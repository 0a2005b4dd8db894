"""Convolution and pooling in the forms of plain JAX that XLA (JAX 0.10.2) compiles to fast code for a CPU."""

from itertools import product

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]

# Positions gathered for one matrix product: their patches should stay in a core's cache.
BLOCK_POSITIONS = 1024


def pointwise(x: Float[Array, "b h w c"], kernel: Float[Array, "1 1 c f"]) -> Float[Array, "b h w f"]:
    """A 1x1 convolution as a matrix product."""
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def kernel_gradient(x: Float[Array, "b h w c"], gradient: Float[Array, "b oh ow f"], size: tuple[int, int],
                    pads: Pads) -> Float[Array, "kh kw c f"]:
    """The gradient by the kernel of `size` of a convolution with stride 1: im2col in pieces that fit the cache.

    It is the sum of (patches of `x`)^T @ `gradient` over blocks of rows.
    """
    (kh, kw), c = size, x.shape[-1]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    b, h, w, f = gradient.shape
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
    return total.reshape(kh, kw, c, f)


def _largest_divisor(number, limit):
    return next(d for d in range(max(1, min(number, limit)), 0, -1) if number % d == 0)


def shifted_products(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], strides: tuple[int, int],
                     pads: Pads) -> Float[Array, "b oh ow c"]:
    """A depthwise convolution as a sum of products, a shift of `x` each: XLA's own is a scalar loop."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    out = [(n - k) // stride + 1 for n, k, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)]
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    return sum(tap * weight for tap, weight in zip(_taps(x, kernel.shape[:2], strides, out), weights, strict=True))


def depthwise_gradients(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"],
                        gradient: Float[Array, "b oh ow c"], strides: tuple[int, int], pads: Pads
                        ) -> tuple[Float[Array, "b h w c"], Float[Array, "kh kw 1 c"]]:
    """The gradients of `shifted_products` by `x` and by `kernel`."""
    size = kernel.shape[:2]
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
    return shifted_products(spread, kernel[::-1, ::-1], (1, 1), ((0, 0), (0, 0))), by_kernel


def max_pool_gradient(x: Float[Array, "b h w c"], gradient: Float[Array, "b oh ow c"], window: int
                      ) -> Float[Array, "b h w c"]:
    """The gradient by `x` of the maxima of windows that do not overlap, given to each window's first maximum."""
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


def _taps(x, size, strides, out):
    """What each place of a kernel of `size` sees of the padded `x`: [b,*out,c] each, in row-major order."""
    (rows, columns), (down, right) = out, strides
    return [x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * right + 1 : right]
            for i, j in product(range(size[0]), range(size[1]))]
