"""Depthwise and strided pointwise convolution against `jax.lax`: values and both gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from pcamjax.ops.convolution import convolve, convolve_depthwise


def normal(shape, dtype, seed):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def reference(x, kernel, strides, padding):
    groups = x.shape[-1] // kernel.shape[2]
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    feature_group_count=groups)


def value_and_gradients(function, *arguments):
    """The value and its gradients by every argument for one fixed, random cotangent."""
    value, pullback = jax.vjp(function, *arguments)
    return value, *pullback(normal(value.shape, value.dtype, 2))


def assert_equals_lax(ours, shape, kernel_shape, dtype, compiled=True, **options):
    @jax.jit
    def expect(*arguments):
        return value_and_gradients(partial(reference, **options), *arguments)

    def compute(*arguments):
        return *value_and_gradients(partial(ours, **options), *arguments), ours(*arguments, **options)

    with jax.enable_x64(dtype == "float64"):
        arguments = normal(shape, dtype, 0), normal(kernel_shape, dtype, 1)
        expected = expect(*arguments)
        actual = (jax.jit(compute) if compiled else compute)(*arguments)
        for a, e in zip(actual, (*expected, expected[0]), strict=True):
            assert a.shape == e.shape and a.dtype == e.dtype == np.dtype(dtype)
            np.testing.assert_allclose(a, e, rtol=0, atol=50 * jnp.finfo(dtype).eps * jnp.abs(e).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (6, 5)])
def test_depthwise_equals_lax(size, strides, padding, dtype):
    assert_equals_lax(convolve_depthwise, (2, *size, 5), (3, 3, 1, 5), dtype, strides=strides, padding=padding)


@pytest.mark.parametrize("kernel_size, strides, padding", [((1, 1), (1, 1), "SAME"), ((5, 2), (1, 1), "SAME"),
                                                           ((2, 3), (2, 1), "SAME"), ((3, 2), (3, 2), "VALID")])
def test_depthwise_of_other_kernels_and_strides(kernel_size, strides, padding):
    assert_equals_lax(convolve_depthwise, (3, 9, 8, 4), (*kernel_size, 1, 4), "float32", strides=strides,
                      padding=padding)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (6, 5)])
def test_strided_pointwise_equals_lax(size, padding, dtype):
    assert_equals_lax(convolve, (2, *size, 5), (1, 1, 5, 3), dtype, strides=(2, 2), padding=padding)


@pytest.mark.parametrize("ours, kernel_shape", [(convolve_depthwise, (3, 3, 1, 4)), (convolve, (1, 1, 4, 6))])
def test_without_jit(ours, kernel_shape):
    assert_equals_lax(ours, (2, 7, 6, 4), kernel_shape, "float32", compiled=False, strides=(2, 2), padding="SAME")


@pytest.mark.parametrize("check_vma", [False, True])
def test_depthwise_gradients_inside_shard_map(check_vma):
    kernel, x = normal((3, 3, 1, 4), "float32", 0), normal((8, 10, 10, 4), "float32", 1)
    mesh = Mesh(jax.devices()[:2], ("devices",))

    def loss(kernel, x):
        return (convolve_depthwise(x, kernel, strides=(2, 2), padding="SAME") ** 2).mean()

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("devices")),
             out_specs=PartitionSpec(), check_vma=check_vma)
    def sharded(kernel, x):
        kernel = lax.pcast(kernel, "devices", to="varying") if check_vma else kernel
        return lax.pmean(jax.grad(loss)(kernel, x), "devices")

    np.testing.assert_allclose(sharded(kernel, x), jax.grad(loss)(kernel, x), rtol=1e-4, atol=1e-6)
