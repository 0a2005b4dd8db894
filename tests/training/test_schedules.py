"""Learning rates at chosen steps, by their formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from pcamjax.errors import InputError
from pcamjax.training.schedules import make_schedule


def rates(steps, total_steps=100, **config):
    return jax.jit(jax.vmap(make_schedule(config, total_steps)))(jnp.asarray(steps, jnp.int32))


def test_constant():
    assert make_schedule(ConfigDict({"name": "constant", "learning_rate": 1}), 10)(jnp.int32(7)) == 1


def test_inverse_time_decays_with_every_update():
    expected = [1e-3, 1e-3 / (1 + 2e-5), 1e-3 / 2]
    got = rates([0, 1, 50_000], name="inverse_time", learning_rate=1e-3, decay=1e-3 / 50)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("staircase, exponents", [(False, [0, 0.5, 1, 1.9]), (True, [0, 0, 1, 1])])
def test_exponential(staircase, exponents):
    got = rates([0, 5, 10, 19], name="exponential", learning_rate=3.0, decay_rate=0.5, decay_steps=10,
                staircase=staircase)
    np.testing.assert_allclose(got, 3 * 0.5**np.array(exponents), rtol=1e-6)


def test_cosine_rises_in_a_line_and_falls_to_its_fraction():
    got = rates([0, 9, 19, 20, 60, 100, 150], name="cosine", learning_rate=2.0, warmup_steps=20,
                final_fraction=0.1)
    np.testing.assert_allclose(got, [2 / 21, 20 / 21, 40 / 21, 2, 1.1, 0.2, 0.2], rtol=1e-5)


def test_cosine_without_warm_up():
    got = rates([0, 25, 50, 100], name="cosine", learning_rate=1.0)
    np.testing.assert_allclose(got, [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("config, words", [
    ({}, "schedule None is not known; known are constant, inverse_time, exponential, cosine"),
    ({"name": "linear"}, "schedule 'linear' is not known"),
    ({"name": "constant"}, "needs the option 'learning_rate'"),
    ({"name": "constant", "learning_rate": 0.1, "decay": 1}, "has no option 'decay'; it has learning_rate"),
    ({"name": "constant", "learning_rate": "0.1"}, "learning_rate = '0.1', expected a number"),
    ({"name": "constant", "learning_rate": 0.0}, "learning_rate = 0.0: expected a number above 0"),
    ({"name": "constant", "learning_rate": float("nan")}, "learning_rate = nan"),
    ({"name": "inverse_time", "learning_rate": 0.1, "decay": -1}, "decay = -1.0: expected a number of at"),
    ({"name": "exponential", "learning_rate": 0.1, "decay_rate": 0.5, "decay_steps": 0}, "decay_steps = 0"),
    ({"name": "cosine", "learning_rate": 0.1, "warmup_steps": 100}, "fewer than the 100 steps"),
    ({"name": "cosine", "learning_rate": 0.1, "final_fraction": 1.5}, "final_fraction = 1.5")])
def test_bad_options_are_named(config, words):
    with pytest.raises(InputError, match=words):
        make_schedule(config, 100)
