"""What is kept from the forward pass to the backward one: the map that BatchNorm reads, not what it is summed of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcamjax.models import layers
from pcamjax.models.layers import BatchNorm, Conv
from pcamjax.ops import compiled
from pcamjax.ops.fusion import fused
from pcamjax.ops.materialised import materialised

X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 16, 32), np.float32))


@pytest.fixture(scope="module", autouse=True)
def built():
    if not compiled.available():
        pytest.skip(compiled.status())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_the_identity_with_its_gradient(dtype):
    x = jnp.asarray(X, dtype)
    np.testing.assert_array_equal(materialised(x), x)
    value, slope = jax.jit(jax.value_and_grad(lambda x: (materialised(x + 1) * x).sum().astype(jnp.float32)))(x)
    expected, wanted = jax.jit(jax.value_and_grad(lambda x: ((x + 1) * x).sum().astype(jnp.float32)))(x)
    np.testing.assert_allclose(np.float32(slope), np.float32(wanted), rtol=1e-2 if dtype == "bfloat16" else 1e-6)
    np.testing.assert_allclose(value, expected, rtol=1e-2 if dtype == "bfloat16" else 1e-5)


def convolution_and_norm(x, train):
    convolution, norm = Conv(32, (3, 3)), BatchNorm()
    variables = convolution.init(jax.random.key(0), x)
    norms = norm.init(jax.random.key(0), x, train=False)

    def loss(variables, x):
        y, _ = norm.apply(norms, convolution.apply(variables, x), train=train, mutable=["batch_stats"])
        return (jnp.maximum(y, 0) ** 2).sum()

    return loss, variables


def test_before_a_norm_one_map_less_is_held_and_the_bits_are_the_same(monkeypatch):
    loss, variables = convolution_and_norm(X, train=True)

    def gradient():
        program = jax.jit(jax.grad(lambda *arguments: loss(*arguments))).lower(variables, X).compile()
        return program(variables, X), program.memory_analysis().temp_size_in_bytes

    ours, held = gradient()
    monkeypatch.setattr(layers, "materialised", lambda x: x)
    plain, more = gradient()
    jax.tree.map(np.testing.assert_array_equal, ours, plain)
    assert held < more - 0.9 * X.nbytes


def test_in_inference_it_is_left_out():
    loss, variables = convolution_and_norm(X, train=False)
    assert "pcamjax_materialise" not in jax.jit(fused(loss)).lower(variables, X).compile().as_text()
