"""The bytes that kernels touch are counted wherever in a program they stand."""

import jax
import jax.numpy as jnp
import pytest

from pcamjax.ops import compiled
from pcamjax.ops.convolution import convolve
from pcamjax.ops.flops import kernel_bytes

X, KERNEL, Y = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 6, 5, 4), (3, 3, 4, 8), (2, 6, 5, 8)))
ONCE = 4 * sum(array.size for array in (X, KERNEL, Y))


def forward(x, kernel):
    return convolve(x, kernel, padding="SAME")


def gradients(x, kernel):
    return jax.grad(lambda x, kernel: forward(x, kernel).sum(), (0, 1))(x, kernel)


def in_a_loop(x, kernel):
    return jax.lax.fori_loop(0, 3, lambda _, y: y + jax.jit(forward)(x, kernel), jnp.zeros(Y.shape))


@pytest.mark.parametrize(("function", "times"), [(forward, 1), (jax.jit(forward), 1), (gradients, 3), (in_a_loop, 1),
                                                 (lambda x, kernel: x.sum() + kernel.sum(), 0)])
def test_kernels_are_counted_once_where_they_stand(function, times):
    if not compiled.available():
        pytest.skip(compiled.status())
    assert kernel_bytes(function, X, KERNEL) == times * ONCE
