"""Optax transformations that take the same steps as the optimizers of Keras 3, with its names and defaults.

Optax's own pieces stand wherever they compute the same. Its Adam, Adamax and Nadam put epsilon elsewhere, and
its Nadam has another momentum schedule. Formulas: appendix A of the thesis and keras/src/optimizers/*.py.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from ml_collections import ConfigDict

from pcamjax.errors import InputError
from pcamjax.training.joined import joined
from pcamjax.training.schedules import from_config, make_schedule


def make_optimizer(config: Mapping[str, Any] | ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """The optimizer that `config` describes, its learning rate schedule included.

    Args:
      config: {"name": one of OPTIMIZERS, "schedule": see `make_schedule`, "clip_norm": largest global norm of
        a gradient (0, the default, for no clipping), and the options of that optimizer}.
      total_steps: updates in the whole training.
    Raises:
      InputError: an unknown name or option, or a value out of range.
    """
    options = dict(config)
    learning_rate = make_schedule(options.pop("schedule", {}), total_steps)
    clip_norm = options.pop("clip_norm", 0.0)
    if not (isinstance(clip_norm, int | float) and 0 <= clip_norm < math.inf):
        raise InputError(f"optimizer clip_norm = {clip_norm!r}: expected a number above 0, or 0 to not clip")
    optimizer = _of_joined(from_config(OPTIMIZERS, options, "optimizer", learning_rate=learning_rate))
    for key in sorted(options.keys() & {"momentum", "rho", "beta_1", "beta_2"}):
        if not 0 <= options[key] < 1:
            raise InputError(f"optimizer {key} = {options[key]!r}: expected a number from 0 to below 1")
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer


def sgd(learning_rate: optax.Schedule, momentum: float = 0.0, nesterov: bool = False
        ) -> optax.GradientTransformation:
    """Keras' SGD: the velocity sums steps, not gradients, and each keeps the learning rate of its time."""
    return _with_momentum(optax.scale_by_learning_rate(learning_rate), momentum, nesterov)


def rmsprop(learning_rate: optax.Schedule, rho: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-7
            ) -> optax.GradientTransformation:
    """Keras' RMSprop, epsilon inside the root."""
    step = optax.chain(optax.scale_by_rms(rho, epsilon), optax.scale_by_learning_rate(learning_rate))
    return _with_momentum(step, momentum)


def adagrad(learning_rate: optax.Schedule, initial_accumulator_value: float = 0.1, epsilon: float = 1e-7
            ) -> optax.GradientTransformation:
    """Keras' Adagrad, epsilon inside the root."""
    return optax.chain(optax.scale_by_rss(initial_accumulator_value, epsilon),
                       optax.scale_by_learning_rate(learning_rate))


def adam(learning_rate: optax.Schedule, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
         ) -> optax.GradientTransformation:
    """Keras' Adam: epsilon joins the root before the bias is corrected ("epsilon hat" in Kingma and Ba)."""
    def direction(step, product, gradient, first, second):
        second = second + (1 - beta_2) * (gradient**2 - second)
        correction = jnp.sqrt(1 - beta_2**step) / (1 - product)
        return correction * first / (jnp.sqrt(second) + epsilon), second

    return optax.chain(_two_moments(beta_1, lambda step: beta_1, direction),
                       optax.scale_by_learning_rate(learning_rate))


def adamax(learning_rate: optax.Schedule, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
           ) -> optax.GradientTransformation:
    """Keras' Adamax: epsilon is added to the running maximum and never enters it."""
    def direction(step, product, gradient, first, largest):
        largest = jnp.maximum(beta_2 * largest, jnp.abs(gradient))
        return first / ((1 - product) * (largest + epsilon)), largest

    return optax.chain(_two_moments(beta_1, lambda step: beta_1, direction),
                       optax.scale_by_learning_rate(learning_rate))


def nadam(learning_rate: optax.Schedule, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7
          ) -> optax.GradientTransformation:
    """Keras' Nadam, with the momentum schedule beta_1 * (1 - 0.96**t / 2) of Dozat (2016)."""
    # Keras rounds these two to float32 before it subtracts them from 1, which is 1e-5 of 1 - beta_2.
    beta_1, beta_2 = float(np.float32(beta_1)), float(np.float32(beta_2))

    def momentum(step):
        return beta_1 * (1 - 0.5 * 0.96**step)

    def direction(step, product, gradient, first, second):
        second = second + (1 - beta_2) * (gradient**2 - second)
        ahead = momentum(step + 1)
        estimate = ahead * first / (1 - product * ahead) + (1 - momentum(step)) * gradient / (1 - product)
        return estimate / (jnp.sqrt(second / (1 - beta_2**step)) + epsilon), second

    return optax.chain(_two_moments(beta_1, momentum, direction), optax.scale_by_learning_rate(learning_rate))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd, "rmsprop": rmsprop, "adagrad": adagrad, "adam": adam, "adamax": adamax, "nadam": nadam}


class TwoMomentsState(NamedTuple):
    """Updates made so far, the product of their momenta, and two moments of each parameter."""

    count: Int[Array, ""]
    product: Float[Array, ""]
    first: PyTree[Array]
    second: PyTree[Array]


def _two_moments(beta_1: float, momentum: Callable, direction: Callable) -> optax.GradientTransformation:
    """Averages gradients with `beta_1`; for each parameter, `direction(step, product of the momenta so far,
    gradient, first moment, old second moment)` gives the step's direction and the new second moment."""
    def init(parameters):
        return TwoMomentsState(jnp.zeros([], jnp.int32), jnp.ones([], jnp.float32),
                               optax.tree.zeros_like(parameters), optax.tree.zeros_like(parameters))

    def update(gradients, state, parameters=None):
        step = (state.count + 1).astype(jnp.float32)
        product = state.product * momentum(step)
        first = jax.tree.map(lambda g, m: m + (1 - beta_1) * (g - m), gradients, state.first)
        both = jax.tree.map(lambda *leaves: direction(step, product, *leaves), gradients, first, state.second)
        updates, second = jax.tree.transpose(jax.tree.structure(gradients), jax.tree.structure((0, 0)), both)
        return updates, TwoMomentsState(state.count + 1, product, first, second)

    return optax.GradientTransformation(init, update)


def _of_joined(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same for all small parameters at once: to none of ours it matters which array a value is of."""
    def init(parameters):
        return optimizer.init(joined(parameters)[0])

    def update(gradients, state, parameters=None):
        pieces, apart = joined(gradients)
        updates, state = optimizer.update(pieces, state)
        return apart(updates), state

    return optax.GradientTransformation(init, update)


def _with_momentum(step: optax.GradientTransformation, momentum: float, nesterov: bool = False
                   ) -> optax.GradientTransformation:
    return optax.chain(step, optax.trace(momentum, nesterov)) if momentum else step
