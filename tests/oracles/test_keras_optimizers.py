"""Keras as the judge: the same gradients through its optimizers and ours, and the same weights after each."""

import jax
import numpy as np
import pytest

from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.schedules import make_schedule

keras = pytest.importorskip("keras")
STEPS = 30
DECAY = {"name": "inverse_time", "learning_rate": 1e-2, "decay": 1e-3 / 50 * 1000}
CONSTANT = {"name": "constant", "learning_rate": 1e-2}


@pytest.mark.parametrize("config, judge", [
    ({"name": "inverse_time", "learning_rate": 1e-3, "decay": 1e-3 / 50},
     ("InverseTimeDecay", {"decay_steps": 1, "decay_rate": 1e-3 / 50})),
    ({"name": "exponential", "learning_rate": 1e-3, "decay_rate": 0.96, "decay_steps": 30},
     ("ExponentialDecay", {"decay_steps": 30, "decay_rate": 0.96})),
    ({"name": "exponential", "learning_rate": 1e-3, "decay_rate": 0.96, "decay_steps": 30, "staircase": True},
     ("ExponentialDecay", {"decay_steps": 30, "decay_rate": 0.96, "staircase": True}))])
def test_same_learning_rates(config, judge):
    name, options = judge
    expected = getattr(keras.optimizers.schedules, name)(1e-3, **options)
    ours = make_schedule(config, 1000)
    for step in (0, 1, 29, 30, 31, 299, 5000, 300_000):
        np.testing.assert_allclose(ours(np.int32(step)), float(expected(step)), rtol=1e-5, atol=1e-12)


def decayed():
    return keras.optimizers.schedules.InverseTimeDecay(1e-2, decay_steps=1, decay_rate=DECAY["decay"])


CASES = {
    "sgd": ({"name": "sgd"}, lambda: keras.optimizers.SGD(1e-2)),
    "momentum": ({"name": "sgd", "momentum": 0.9}, lambda: keras.optimizers.SGD(1e-2, momentum=0.9)),
    "nesterov": ({"name": "sgd", "momentum": 0.9, "nesterov": True},
                 lambda: keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=True)),
    "momentum, 1/t": ({"name": "sgd", "momentum": 0.9, "schedule": DECAY},
                      lambda: keras.optimizers.SGD(decayed(), momentum=0.9)),
    "nesterov, 1/t": ({"name": "sgd", "momentum": 0.9, "nesterov": True, "schedule": DECAY},
                      lambda: keras.optimizers.SGD(decayed(), momentum=0.9, nesterov=True)),
    "adam": ({"name": "adam"}, lambda: keras.optimizers.Adam(1e-2)),
    "adam, 1/t": ({"name": "adam", "schedule": DECAY}, lambda: keras.optimizers.Adam(decayed())),
    "adamax": ({"name": "adamax"}, lambda: keras.optimizers.Adamax(1e-2)),
    "nadam": ({"name": "nadam"}, lambda: keras.optimizers.Nadam(1e-2)),
    "rmsprop": ({"name": "rmsprop"}, lambda: keras.optimizers.RMSprop(1e-2)),
    "rmsprop, momentum": ({"name": "rmsprop", "momentum": 0.9},
                          lambda: keras.optimizers.RMSprop(1e-2, momentum=0.9)),
    "adagrad": ({"name": "adagrad"}, lambda: keras.optimizers.Adagrad(1e-2)),
    "clipped": ({"name": "sgd", "clip_norm": 0.5}, lambda: keras.optimizers.SGD(1e-2, global_clipnorm=0.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_same_steps(case):
    config, keras_optimizer = CASES[case]
    optimizer, judge = make_optimizer({"schedule": CONSTANT} | config, STEPS), keras_optimizer()
    worst = 0.0
    rng = np.random.default_rng(7)
    weights = np.zeros((5, 4), np.float32)
    state, variable = optimizer.init(weights), keras.Variable(weights)
    update = jax.jit(optimizer.update)
    for step in range(STEPS):
        # Sizes from 1e-4, where the place of epsilon shows, to 10, and now and then none at all.
        scale = 10 ** rng.uniform(-4, 1) if step % 7 != 6 else 0
        gradient = (scale * rng.normal(size=weights.shape)).astype(np.float32)
        # Weights restart at zero each step: their difference is then the update itself, not rounded to them.
        updates, state = update(gradient, state, weights)
        variable.assign(np.zeros_like(weights))
        judge.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        expected = variable.numpy()
        worst = max(worst, np.abs(updates - expected).max() / max(np.abs(expected).max(), 1e-30))
    assert worst < 2e-6
