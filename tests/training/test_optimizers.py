"""The state that optimizers keep, and bad options; that their steps are Keras' is shown in tests/oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from pcamjax.errors import InputError
from pcamjax.training.optimizers import OPTIMIZERS, make_optimizer

CONSTANT = {"name": "constant", "learning_rate": 0.1}
WEIGHTS = {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(4)}}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_arrays_of_fixed_shape(name):
    optimizer = make_optimizer({"name": name, "schedule": CONSTANT, "clip_norm": 1.0}, 10)
    state = optimizer.init(WEIGHTS)
    _, after = jax.jit(optimizer.update)(WEIGHTS, state, WEIGHTS)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for before, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert isinstance(before, jax.Array)
        assert (leaf.shape, leaf.dtype) == (before.shape, before.dtype)
        assert leaf.dtype == (jnp.int32 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.float32)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_descends_a_quadratic(name):
    optimizer = make_optimizer({"name": name, "schedule": CONSTANT}, 200)

    def step(carry, _):
        weights, state = carry
        updates, state = optimizer.update(weights, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (WEIGHTS, optimizer.init(WEIGHTS)), length=200)
    assert optax.tree.norm(weights) < 0.3 * optax.tree.norm(WEIGHTS)


def test_clips_the_global_norm():
    optimizer = make_optimizer({"name": "sgd", "schedule": CONSTANT, "clip_norm": 0.5}, 10)
    updates, _ = optimizer.update(WEIGHTS, optimizer.init(WEIGHTS), WEIGHTS)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.1 * 0.5, rtol=1e-6)


def test_takes_a_config_dict_with_whole_numbers():
    config = {"name": "sgd", "momentum": 0, "nesterov": True, "clip_norm": 0, "schedule": CONSTANT}
    optimizer = make_optimizer(ConfigDict(config), 10)
    updates, _ = optimizer.update(WEIGHTS, optimizer.init(WEIGHTS), WEIGHTS)
    np.testing.assert_allclose(updates["a"], -0.1)


@pytest.mark.parametrize("config, words", [
    ({"name": "lion"}, "optimizer 'lion' is not known; known are sgd, rmsprop, adagrad, adam, adamax, nadam"),
    ({"name": "adam", "momentum": 0.9}, "'adam' has no option 'momentum'; it has beta_1, beta_2, epsilon"),
    ({"name": "sgd", "momentum": 1.5}, "momentum = 1.5: expected a number from 0 to below 1"),
    ({"name": "sgd", "clip_norm": -1}, "clip_norm = -1: expected a number above 0, or 0 to not clip"),
    ({"name": "adam", "epsilon": "small"}, "epsilon = 'small', expected a number"),
    ({"name": "adam", "beta_1": 1.0}, "beta_1 = 1.0: expected a number from 0 to below 1"),
    ({"name": "sgd", "schedule": {"name": "none"}}, "schedule 'none' is not known")])
def test_bad_options_are_named(config, words):
    with pytest.raises(InputError, match=words):
        make_optimizer({"schedule": CONSTANT} | config, 10)
