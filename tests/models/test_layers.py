import jax
import jax.numpy as jnp
import numpy as np

from pcamjax.models import layers
from pcamjax.models.layers import BatchNorm, Dropout
from pcamjax.models.plain import PlainBlocks
from pcamjax.ops.pooling import _native as native_max_pool


def test_dropout_keeps_the_expected_share_and_the_mean():
    x = jnp.ones((8, 50, 50, 4))
    y = Dropout(0.25).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert abs(float((y == 0).mean()) - 0.25) < 0.01
    assert (Dropout(0.25).apply({}, x, train=False) == x).all()


def test_dropout_draws_by_position_not_by_batch():
    def draw(count):
        return Dropout(0.5).apply({}, jnp.ones((count, 30)), train=True, rngs={"dropout": jax.random.key(1)})
    assert (draw(8)[:4] == draw(4)).all()
    assert not (draw(8)[0] == draw(8)[1]).all()


def test_batch_norm_moves_its_statistics_as_keras_does():
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 3)) * 2 + 1
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, train=False)
    assert set(variables["params"]) == {"scale", "bias"}
    y, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    x, y = np.asarray(x), np.asarray(y)
    mean, variance = np.mean(x, (0, 1, 2)), np.var(x, (0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.01 * mean, rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.99 + 0.01 * variance, rtol=1e-5)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3), atol=1e-5)


def test_a_block_has_the_gradient_that_lax_own_pool_gives_it(monkeypatch):
    """XLA computes a normalised map once more for the backward pass, rounded differently: no maximum may get lost."""
    x = jax.random.normal(jax.random.key(0), (8, 30, 30, 3))
    network = PlainBlocks((4,))
    variables = network.init(jax.random.key(0), x, train=False)

    def gradient():
        def loss(params):
            y, _ = network.apply({**variables, "params": params}, x, train=True, rngs={"dropout": jax.random.key(1)},
                                 mutable=["batch_stats"])
            return (y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum()
        return jax.jit(jax.grad(loss))(variables["params"])

    ours = gradient()
    no_pads = ((0, 0), (0, 0))
    monkeypatch.setattr(layers, "max_pool",
                        lambda x, window, stride, padding: native_max_pool(x, window, stride, no_pads))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(gradient()), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5 * float(abs(b).max()))
