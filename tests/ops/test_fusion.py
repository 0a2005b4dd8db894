"""What is fused with a convolution against the same computed one after the other, and what of a program is fused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from pcamjax.models import MODELS, model_input, model_spec
from pcamjax.models.layers import Conv, DepthwiseConv, ZeroPad
from pcamjax.models.variables import initial_variables
from pcamjax.ops import compiled
from pcamjax.ops.convolution import convolve, convolve_depthwise
from pcamjax.ops.fusion import fused
from pcamjax.ops.preparation import prepared
from pcamjax.ops.statistics import normalise
from pcamjax.training.step import make_forward

CHANNELS = st.sampled_from([1, 3, 8, 16, 17, 24, 32, 40, 48, 96])
SIZES = st.integers(1, 13)
PADDINGS = st.sampled_from(["SAME", "VALID"])
CASES = settings(max_examples=12, deadline=None, derandomize=True)


@pytest.fixture(scope="module", autouse=True)
def built():
    if not compiled.available():
        pytest.skip(compiled.status())


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def per_channel(channels, seed):
    """Numbers of both signs, one of them 0."""
    return draw(channels, seed=seed).at[0].set(0)


PACKED = "pcamjax_convolve_packed"  # comes with each convolution that is finished, where it is not prepared


def called(function, *arguments, packed=False):
    """How often the compiled program calls which kernels."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    counts = {name: text.count(f'custom_call_target="{name}"') for name in compiled.TARGETS}
    assert packed or counts[PACKED] == counts["pcamjax_convolve_finished"]
    return {name: count for name, count in counts.items() if count and (packed or name != PACKED)}


def assert_same(function, *arrays, calls, ulps=50.0):
    """The fused function calls the kernels `calls` alone, and gives what the plain one gives in float64."""
    assert called(fused(function), *arrays) == calls
    with jax.enable_x64(True):
        expected = np.asarray(jax.jit(function)(*(jnp.asarray(array, jnp.float64) for array in arrays)))
    np.testing.assert_allclose(jax.jit(fused(function))(*arrays), expected, rtol=0,
                               atol=ulps * 2**-23 * max(np.abs(expected).max(initial=0), 1e-30))


def chain(x, kernel, added, bias, *statistics, convolution, activation, last, order):
    """A convolution and in one of three orders what may follow it."""
    y = convolution(x, kernel)
    if order == "norm":
        y = normalise(y + bias.reshape(1, 1, 1, -1), *statistics)
    if added is not None:
        y = added + y
    y = activation(y)
    return normalise(y, *last) if order == "activation first" else y


ACTIVATIONS = {"none": lambda x: x, "relu": nn.relu, "relu6": lambda x: jnp.clip(x, 0, 6)}


def assert_chain_is_fused(kind, size, kernel_shape, c, strides, padding, activation, order, residual, images=2,
                          **options):
    f = kernel_shape[-1]
    ours = convolve_depthwise if kind == "depthwise" else convolve
    convolution = partial(ours, strides=strides, padding=padding)
    x, kernel = draw(images, *size, c), draw(*kernel_shape, seed=1)
    out = jax.eval_shape(convolution, x, kernel).shape
    if 0 in out:
        return
    added = draw(*out, seed=2) if residual else jnp.zeros(0)
    channels = [per_channel(f, seed) for seed in range(3, 10)]

    def function(x, kernel, added, bias, *channels):
        return chain(x, kernel, added if residual else None, bias, *channels[:3], convolution=convolution,
                     activation=ACTIVATIONS[activation], last=channels[3:], order=order)

    assert_same(function, x, kernel, added, *channels, calls={f"pcamjax_{kind}_finished": 1}, **options)


AFTER = (st.sampled_from(sorted(ACTIVATIONS)), st.sampled_from(["norm", "activation first"]))


@CASES
@given(st.tuples(SIZES, SIZES), st.tuples(st.integers(1, 5), st.integers(1, 5)), CHANNELS, CHANNELS,
       st.tuples(st.integers(1, 3), st.integers(1, 3)), PADDINGS, *AFTER, st.booleans())
@example((20, 19), (7, 7), 3, 64, (2, 2), "VALID", "relu", "norm", False)
@example((5, 6), (1, 1), 700, 260, (1, 1), "SAME", "relu", "norm", True)  # taps and columns in several blocks
@example((6, 6), (3, 3), 300, 70, (2, 2), "SAME", "relu6", "activation first", True)
def test_convolution(size, kernel, c, f, strides, padding, activation, order, residual):
    assert_chain_is_fused("convolve", size, (*kernel, c, f), c, strides, padding, activation, order, residual)


@CASES
@given(st.tuples(SIZES, SIZES), st.sampled_from([32, 48]), st.sampled_from([32, 96]), PADDINGS, *AFTER, st.booleans())
@example((9, 11), 32, 32, "VALID", "relu", "norm", True)
def test_minimal_filtering(size, c, f, padding, activation, order, residual):
    rows, columns = (n if padding == "SAME" else n - 2 for n in size)
    tiles = -(-rows // 4) * -(-columns // 4)
    if rows > 0 and columns > 0 and rows * columns > 0.4 * 16 * tiles:
        assert_chain_is_fused("winograd", size, (3, 3, c, f), c, (1, 1), padding, activation, order, residual,
                              images=96 // tiles + 1, ulps=300.0)


@CASES
@given(st.tuples(SIZES, SIZES), st.sampled_from([16, 17, 24, 40, 64]), st.tuples(st.integers(1, 3), st.integers(1, 3)),
       PADDINGS, *AFTER)
def test_depthwise(size, c, strides, padding, activation, order):
    assert_chain_is_fused("depthwise", size, (3, 3, 1, c), c, strides, padding, activation, order, False)


def test_padding_is_left_to_the_convolution():
    layers = nn.Sequential([ZeroPad(0, 1), DepthwiseConv((2, 2), "VALID"), ZeroPad(2, 1),
                            Conv(8, (3, 3), padding="VALID")])
    x = draw(2, 8, 9, 16)
    variables = layers.init(jax.random.key(0), x)
    assert_same(lambda x: layers.apply(variables, x), x,
                calls={"pcamjax_depthwise_finished": 1, "pcamjax_convolve_finished": 1})
    program = jax.jit(fused(lambda x: layers.apply(variables, x))).lower(x).compile().as_text()
    assert " pad(" not in program


def test_nan_goes_through_relu():
    x, kernel = jnp.full((1, 4, 4, 16), np.nan), draw(1, 1, 16, 16)
    assert np.isnan(jax.jit(fused(lambda x: nn.relu(convolve(x, kernel, padding="SAME"))))(x)).all()


KERNEL = draw(3, 3, 16, 16, seed=1)


def similar(x, kernel=KERNEL):
    return convolve(x, kernel.astype(x.dtype), padding="SAME")


PLAIN, FINISHED = {"pcamjax_convolve": 1}, {"pcamjax_convolve_finished": 1}


@pytest.mark.parametrize("function, calls", [
    (lambda x: (lambda y: nn.relu(y) + y)(similar(x)), PLAIN),  # the map is wanted twice
    (lambda x: similar(x) + similar(x, 2 * KERNEL), PLAIN | FINISHED),
    (lambda x: 1 - similar(x), PLAIN),
    (lambda x: jnp.exp(similar(x)), PLAIN),
    (lambda x: nn.relu(nn.relu(similar(x)) - 1), FINISHED),
    (lambda x: nn.relu(similar(x)) + x, FINISHED),
    (lambda x: jnp.minimum(jnp.maximum(jnp.minimum(similar(x), -1), 2), 5), FINISHED),
    (lambda x: similar(x) * x[..., :1], PLAIN),
    (lambda x: jnp.pad(similar(jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=3)),
                       ((0, 0), (0, 0), (0, 0), (1, 1))), PLAIN),
])
def test_what_cannot_be_fused_stays_as_it_was(function, calls):
    assert_same(function, draw(2, 5, 6, 16), calls=calls)


def test_other_types_are_left_alone():
    def function(x):
        return nn.relu(similar(x))

    x = draw(1, 4, 4, 16).astype(jnp.bfloat16)
    assert called(fused(function), x) == called(function, x)
    np.testing.assert_array_equal(np.float32(fused(function)(x)), np.float32(function(x)))


def test_an_accelerator_gets_the_program_as_it_was():
    def function(x):
        return jnp.clip(normalise(similar(jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))), *channels), 0, 6)

    x, channels = draw(2, 8, 8, 16), [per_channel(16, seed) for seed in range(3)]
    plain, ours = (jax.jit(function).trace(x).lower(lowering_platforms=("tpu",)) for function in
                   (function, fused(function)))
    assert ours.cost_analysis()["flops"] == pytest.approx(plain.cost_analysis()["flops"], rel=1e-4)
    assert "pcamjax" not in ours.as_text()


@pytest.mark.parametrize("wrapper", ["shard_map", "pmap", "vmap"])
def test_inside(wrapper):
    x = draw(2, 3, 6, 6, 16)
    function = fused(lambda x: nn.relu(similar(x) + 1))
    if wrapper == "shard_map":
        mapped = jax.jit(jax.shard_map(lambda x: function(x[0])[None], mesh=Mesh(jax.devices()[:2], ("devices",)),
                                       in_specs=PartitionSpec("devices"), out_specs=PartitionSpec("devices")))
    else:
        mapped = jax.pmap(function, devices=jax.devices()[:2]) if wrapper == "pmap" else jax.vmap(function)
    np.testing.assert_allclose(mapped(x)[1], jax.jit(function)(x[1]), rtol=0, atol=1e-5)


def test_what_depends_on_variables_alone_is_computed_once():
    def function(variables, x):
        scale, bias = variables["scale"] * 2, jnp.broadcast_to(variables["bias"], x.shape)
        return nn.relu(similar(x, variables["kernel"]) * jnp.sqrt(scale).reshape(1, 1, 1, -1)) + bias

    x, variables = draw(2, 20, 20, 16), {"kernel": KERNEL, "scale": jnp.ones(16), "bias": draw(16, seed=3)}
    before, after = prepared(fused(function))
    arrays = jax.jit(before)(variables, x)
    assert called(before, variables, x, packed=True) == {PACKED: 1}
    assert called(after, (variables, arrays), x, packed=True) == FINISHED
    assert sum(array.size for array in arrays) < 2 * KERNEL.size  # the bias is not spread over a map to be kept
    np.testing.assert_array_equal(jax.jit(after)((variables, arrays), 2 * x),
                                  jax.jit(fused(function))(variables, 2 * x))


def test_without_kernels_nothing_is_prepared(monkeypatch):
    monkeypatch.setattr(compiled, "available", lambda: False)
    before, after = prepared(lambda kernel, x: similar(x, kernel))
    x = draw(2, 5, 6, 16)
    assert before(KERNEL, x) == []
    np.testing.assert_array_equal(after((KERNEL, []), x), similar(x))


NINE = [name for name in MODELS if name not in ("tiny", "smooth")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ("mobilenet", "scratch1") else
                                               pytest.mark.exhaustive) for name in NINE])
def test_networks(name):
    """With biases, scales and statistics away from where they begin; kernels that all grew would end in infinity."""
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    network, prepare = model_spec(name).build(), model_input(name, "float32")

    def moved(x):
        return x + (x.ndim == 1) * 0.1 * np.random.default_rng(x.size).random(x.shape, np.float32)

    variables = jax.tree.map(moved, initial_variables(name, 0))

    def plain(variables, images):
        return network.apply(variables, prepare(images.astype(jnp.float32)), train=False)

    before, after = map(jax.jit, prepared(make_forward(name)))
    logits, expected = (jax.jit(function)(variables, images) for function in (make_forward(name), plain))
    np.testing.assert_array_equal(after((variables, before(variables, images)), images), logits)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    kernels = called(make_forward(name), variables, images)
    if name != "densenet201":  # which puts maps side by side before anything that could be fused
        assert not {"pcamjax_convolve", "pcamjax_winograd"} & set(kernels)
