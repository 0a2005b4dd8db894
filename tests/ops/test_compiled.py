"""The compiled kernels against `jax.lax`: values and gradients over random shapes; and what is done without them."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from pcamjax.ops import compiled
from pcamjax.ops.convolution import convolve, convolve_depthwise
from pcamjax.ops.pooling import average_pool, max_pool
from pcamjax.ops.statistics import moments, normalise

SIZES = st.integers(1, 13)
STRIDES = st.tuples(st.integers(1, 3), st.integers(1, 3))
PADDINGS = st.sampled_from(["SAME", "VALID"])
CHANNELS = st.sampled_from([1, 3, 8, 16, 17, 24, 32, 40, 48, 96])
WIDE = 128 * max(4, os.cpu_count()) + 12  # two blocks of columns for each of XLA's threads, and some more
CASES = settings(max_examples=12, deadline=None, derandomize=True)


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def assert_alike(ours, theirs, *arrays, ulps=50.0):
    """Both functions' values and gradients by all arrays agree to `ulps` roundings of the largest value.

    The reference is computed in float64, so that its own rounding does not count.
    """
    arrays = [jnp.asarray(array) for array in arrays]
    value, pullback = jax.vjp(jax.jit(ours), *arrays)
    slope = jnp.asarray(draw(value.shape, 9))
    with jax.enable_x64(True):
        exact, exact_pullback = jax.vjp(jax.jit(theirs), *(jnp.asarray(a, jnp.float64) for a in arrays))
        expected = (exact, *exact_pullback(jnp.asarray(slope, jnp.float64)))
    for a, e in zip((value, *pullback(slope)), expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, e, rtol=0, atol=ulps * 2**-23 * max(np.abs(e).max(), 1e-30))


def reference(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    feature_group_count=x.shape[-1] // kernel.shape[2])


def fits(size, kernel, padding):
    return padding == "SAME" or all(n >= k for n, k in zip(size, kernel, strict=True))


@pytest.fixture(scope="module", autouse=True)
def built():
    if not compiled.available():
        pytest.skip(compiled.status())


@CASES
@given(st.tuples(SIZES, SIZES), st.tuples(st.integers(1, 5), st.integers(1, 5)), CHANNELS, CHANNELS, STRIDES, PADDINGS)
@example((20, 19), (7, 7), 3, 64, (2, 2), "VALID")
@example((5, 6), (1, 1), 300, 260, (1, 1), "SAME")  # a large kernel: its gradient is summed by channels
@example((11, 12), (1, 1), 70, WIDE, (1, 1), "SAME")  # few positions, many columns: threads share the columns
@example((9, 8), (3, 3), 3, WIDE, (1, 1), "SAME")  # with taps that are read as one run
@example((5, 4), (3, 2), WIDE, 20, (2, 1), "SAME")  # by the input
@example((6, 5), (1, 1), WIDE, 20, (2, 2), "SAME")  # where no tap reads some of it
@example((4, 4), (7, 1), 32, 20, (1, 1), "SAME")  # most taps lie beyond the edges
def test_convolution(size, kernel, c, f, strides, padding):
    if fits(size, kernel, padding):
        options = {"strides": strides, "padding": padding}
        assert_alike(partial(convolve, **options), partial(reference, **options), draw((2, *size, c), 0),
                     draw((*kernel, c, f), 1))


@CASES
@given(st.tuples(SIZES, SIZES), st.sampled_from([32, 48, 80]), st.sampled_from([32, 64, 96]), PADDINGS)
@example((5, 11), 32, 32, "VALID")
def test_minimal_filtering(size, c, f, padding):
    """Of 3x3 kernels, in as many tiles as it takes for it to be chosen."""
    if fits(size, (3, 3), padding):
        images = 96 // (-(-size[0] // 4) * -(-size[1] // 4)) + 1
        options = {"strides": (1, 1), "padding": padding}
        assert_alike(partial(convolve, **options), partial(reference, **options), draw((images, *size, c), 0),
                     draw((3, 3, c, f), 1), ulps=200.0)


@CASES
@given(st.tuples(SIZES, SIZES), st.sampled_from([16, 17, 24, 40, 64]), STRIDES, PADDINGS)
@example((60, 61), 40, (2, 2), "SAME")  # of several windows
@example((45, 50), 17, (1, 1), "SAME")
@example((9, 9), 17, (4, 5), "SAME")  # positions that no tap reads
def test_depthwise(size, c, strides, padding):
    if fits(size, (3, 3), padding):
        options = {"strides": strides, "padding": padding}
        assert_alike(partial(convolve_depthwise, **options), partial(reference, **options), draw((3, *size, c), 0),
                     draw((3, 3, 1, c), 1))


@CASES
@given(st.tuples(SIZES, SIZES), st.sampled_from([16, 17, 24, 40]), st.integers(1, 3), st.integers(1, 3), PADDINGS)
def test_pooling(size, c, window, stride, padding):
    if not fits(size, (window, window), padding):
        return
    x = np.round(draw((2, *size, c), 0))  # few distinct values: many windows hold the maximum twice
    strides = (stride, stride)

    def largest(x):
        return lax.reduce_window(x, -np.inf, lax.max, (1, window, window, 1), (1, *strides, 1), padding)

    assert_alike(partial(max_pool, window=window, stride=stride, padding=padding), largest, x, ulps=2.0)
    assert_alike(partial(average_pool, window=window, stride=stride, padding=padding),
                 partial(nn.avg_pool, window_shape=(window, window), strides=strides, padding=padding,
                         count_include_pad=False), x)


@pytest.mark.parametrize("c", [16, 24, 70, 128])
def test_statistics(c):
    x, mean, scale, bias = draw((3, 11, 13, c), 0) + 2, draw(c, 1), draw(c, 2), draw(c, 3)
    assert_alike(lambda x: jnp.stack(moments(x)), lambda x: jnp.stack([x.mean((0, 1, 2)), (x**2).mean((0, 1, 2))]), x)
    with jax.numpy_rank_promotion("allow"):
        assert_alike(normalise, lambda x, mean, scale, bias: (x - mean) * scale + bias, x, mean, scale, bias)


def test_nothing_is_left_of_a_map_smaller_than_the_kernel():
    x = jnp.zeros((2, 2, 9, 16))
    assert convolve(x, jnp.zeros((3, 3, 16, 16)), padding="VALID").shape == (2, 0, 7, 16)
    assert convolve_depthwise(x, jnp.zeros((3, 3, 1, 16)), padding="VALID").shape == (2, 0, 7, 16)
    assert max_pool(x, window=3).shape == (2, 0, 3, 16)


def test_the_kernels_are_what_is_called():
    """So that the tests above do not compare XLA with itself."""
    x, kernel = draw((8, 16, 16, 32), 0), draw((3, 3, 32, 32), 1)

    def loss(x, kernel):
        return (max_pool(convolve(x, kernel, padding="SAME")) ** 2).sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().as_text()
    for target in ("winograd", "winograd_by_input", "winograd_by_kernel", "max_pool_by_input"):
        assert f'"pcamjax_{target}"' in text


def test_under_vmap():
    x, kernel = jnp.asarray(draw((3, 2, 6, 6, 16), 0)), jnp.asarray(draw((3, 3, 16, 8), 1))
    one = jax.jit(lambda x: convolve(x, kernel, padding="SAME"))
    np.testing.assert_allclose(jax.vmap(one)(x)[1], one(x[1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("environment, status", [
    ({"PCAMJAX_KERNELS": "xla"}, "PCAMJAX_KERNELS asks for it"),
    ({"PATH": "", "CXX": ""}, "there is no C++ compiler"),
    ({"CXX": "/nonexistent/c++"}, "No such file"),
])
def test_without_them_xla_computes(environment, status):
    code = ("from pcamjax.ops import compiled; from pcamjax.ops.convolution import convolve; import numpy as np; "
            "x, kernel = np.ones((1, 4, 4, 1), 'f'), np.ones((3, 3, 1, 1), 'f'); "
            "print(convolve(x, kernel, padding='VALID')[0, 0, 0, 0], compiled.status())")
    made = subprocess.run([sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True,
                          check=True)
    value, _, said = made.stdout.partition(" ")
    assert float(value) == 9
    assert said.startswith("xla: ") and status in said
