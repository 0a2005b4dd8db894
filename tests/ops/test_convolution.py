"""Convolution and max-pooling against `jax.lax`: values and both gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from pcamjax.ops import xla_cpu
from pcamjax.ops.convolution import convolve
from pcamjax.ops.pooling import max_pool

CASES = [  # input shape, kernel shape, strides, padding
    ((1, 3, 3, 1), (3, 3, 1, 1), (1, 1), "VALID"),
    ((2, 9, 7, 3), (3, 3, 3, 4), (1, 1), "VALID"),
    ((3, 8, 11, 20), (3, 3, 20, 24), (1, 1), "SAME"),
    ((2, 9, 7, 3), (2, 5, 3, 4), (1, 1), "SAME"),
    ((6, 30, 40, 17), (3, 3, 17, 18), (1, 1), "VALID"),
    ((2, 6, 5, 4), (1, 1, 4, 8), (1, 1), "SAME"),
    ((2, 6, 5, 4), (1, 1, 4, 8), (2, 2), "SAME"),
    ((2, 9, 8, 3), (3, 3, 3, 4), (2, 2), "SAME"),
]


def reference(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def normal(shape, dtype, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def value_and_gradients(function, *arguments):
    """The value and its gradients by every argument for one fixed, random cotangent."""

    @jax.jit
    def run(*arguments):
        value, pullback = jax.vjp(function, *arguments)
        return value, *pullback(normal(value.shape, value.dtype, 2))

    return run(*arguments)


@pytest.mark.parametrize(
    ("shape", "kernel_shape", "strides", "padding", "dtype"),
    [(*case, "float32") for case in CASES] + [(*case, "float64") for case in CASES[1:6:2]],
)
def test_convolve_equals_lax(shape, kernel_shape, strides, padding, dtype):
    with jax.enable_x64(dtype == "float64"):
        x, kernel = normal(shape, dtype, 0), normal(kernel_shape, dtype, 1)
        actual = value_and_gradients(partial(convolve, strides=strides, padding=padding), x, kernel)
        expected = value_and_gradients(partial(reference, strides=strides, padding=padding), x, kernel)
        inferred = convolve(x, kernel, strides=strides, padding=padding)  # another form than training's
        for a, e in zip((inferred, *actual), (expected[0], *expected), strict=True):
            assert a.shape == e.shape and a.dtype == e.dtype == np.dtype(dtype)
            np.testing.assert_allclose(a, e, rtol=0, atol=50 * jnp.finfo(dtype).eps * jnp.abs(e).max())


def test_kernel_gradient_in_one_block_equals_many(monkeypatch):
    x, gradient = normal((4, 12, 12, 3), "float32", 0), normal((4, 10, 10, 5), "float32", 1)
    pads = ((0, 0), (0, 0))
    monkeypatch.setattr(xla_cpu, "BLOCK_POSITIONS", 10**6)
    whole = xla_cpu.kernel_gradient(x, gradient, (3, 3), pads)
    monkeypatch.setattr(xla_cpu, "BLOCK_POSITIONS", 1)
    np.testing.assert_allclose(whole, xla_cpu.kernel_gradient(x, gradient, (3, 3), pads), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "window"), [((2, 8, 8, 3), 2), ((2, 9, 7, 3), 2), ((1, 2, 3, 1), 2), ((2, 8, 7, 3), 3)]
)
def test_max_pool_equals_lax_also_where_values_tie(shape, window):
    x = jnp.round(normal(shape, "float32", 0))  # few distinct values: many windows hold the maximum twice

    def expected(x):
        size = (1, window, window, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, size, size, "VALID")

    for a, e in zip(
        value_and_gradients(partial(max_pool, window=window), x),
        value_and_gradients(expected, x),
        strict=True,
    ):
        np.testing.assert_array_equal(a, e)


def loss(kernel, x):
    return (max_pool(convolve(x, kernel, padding="VALID")) ** 2).mean()


@pytest.mark.parametrize("check_vma", [False, True])
def test_gradients_inside_shard_map(check_vma):
    kernel, x = normal((3, 3, 3, 4), "float32", 0), normal((8, 10, 10, 3), "float32", 1)
    mesh = Mesh(jax.devices()[:2], ("devices",))

    @jax.jit
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("devices")),
        out_specs=PartitionSpec(),
        check_vma=check_vma,
    )
    def sharded(kernel, x):
        kernel = lax.pcast(kernel, "devices", to="varying") if check_vma else kernel
        return lax.pmean(jax.grad(loss)(kernel, x), "devices")

    np.testing.assert_allclose(sharded(kernel, x), jax.grad(loss)(kernel, x), rtol=1e-4, atol=1e-6)


def test_gradients_inside_pmap():
    kernel, x = normal((3, 3, 3, 4), "float32", 0), normal((2, 4, 10, 10, 3), "float32", 1)
    mean = jax.pmap(
        lambda x: lax.pmean(jax.grad(loss)(kernel, x), "devices"), "devices", devices=jax.devices()[:2]
    )(x)
    np.testing.assert_allclose(mean[0], jax.grad(loss)(kernel, x.reshape(8, 10, 10, 3)), rtol=1e-4, atol=1e-6)
