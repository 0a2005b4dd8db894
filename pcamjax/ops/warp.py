"""Bilinear warping of images by affine maps."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def warp(images: UInt8[Array, "b h w 3"], matrices: Float[Array, "b 2 3"], reach: float
         ) -> Float[Array, "b h w 3"]:
    """Samples images bilinearly at `matrix @ (row, column, 1)` for every output pixel, with mirrored borders.

    The same as `scipy.ndimage.affine_transform(image, matrix, order=1, mode="reflect")` on each channel.

    Args:
      reach: an upper bound of the absolute source coordinates, in pixels.
    Returns:
      float32 in 0..255.
    """
    height, width = images.shape[1:3]
    # Fixed point: XLA may compute a float coordinate twice and round it differently, once for its floor and
    # once for its fraction, which puts a sample at a whole pixel off by one. Integers are the same always.
    bits = 30 - math.ceil(reach).bit_length()

    def one(image: Array, matrix: Array) -> Array:
        matrix = jnp.round(matrix * 2.0**bits).astype(jnp.int32)
        row = jax.lax.broadcasted_iota(jnp.int32, (height, width), 0)
        column = jax.lax.broadcasted_iota(jnp.int32, (height, width), 1)
        y, x = (m[0] * row + m[1] * column + m[2] for m in matrix)
        fy, fx = (((c & (2**bits - 1)).astype(jnp.float32) * 2.0**-bits)[..., None] for c in (y, x))
        top, bottom = (_mirror((y >> bits) + i, height) * width for i in (0, 1))
        left, right = (_mirror((x >> bits) + i, width) for i in (0, 1))
        pixels = image.reshape(height * width, 3)

        def at(index: Array) -> Array:
            return pixels.at[index].get(mode="promise_in_bounds").astype(jnp.float32)

        return ((1 - fy) * ((1 - fx) * at(top + left) + fx * at(top + right))
                + fy * ((1 - fx) * at(bottom + left) + fx * at(bottom + right)))

    return jax.vmap(one)(images, matrices)


def _mirror(index: Array, side: int) -> Array:
    index = index % (2 * side)
    return jnp.minimum(index, 2 * side - 1 - index)
