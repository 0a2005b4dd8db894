"""Learning rates as functions of the number of updates made so far."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from pcamjax.errors import InputError


def make_schedule(config: Mapping[str, Any] | ConfigDict, total_steps: int) -> optax.Schedule:
    """The learning rate as a function of the update count, the first update being 0.

    Args:
      config: {"name": one of SCHEDULES, "learning_rate": ..., and the options of that schedule}.
      total_steps: updates in the whole training; only the cosine schedule depends on it.
    Raises:
      InputError: an unknown name or option, or a value out of range.
    """
    schedule = from_config(SCHEDULES, config, "schedule", total_steps=total_steps)
    _require("schedule learning_rate", config["learning_rate"], 0 < config["learning_rate"] < math.inf,
             "a number above 0")
    return schedule


def constant(learning_rate: float, *, total_steps: int) -> optax.Schedule:
    """Always `learning_rate`."""
    return optax.constant_schedule(learning_rate)


def inverse_time(learning_rate: float, decay: float, *, total_steps: int) -> optax.Schedule:
    """learning_rate / (1 + decay * step): `SGD(decay)` of Keras 2, `InverseTimeDecay(decay_steps=1)` of 3."""
    _require("schedule decay", decay, 0 <= decay < math.inf, "a number of at least 0")
    return lambda step: learning_rate / (1 + decay * step)


def exponential(learning_rate: float, decay_rate: float, decay_steps: int, staircase: bool = False, *,
                total_steps: int) -> optax.Schedule:
    """learning_rate * decay_rate ** (step / decay_steps), the exponent rounded down with `staircase`: Keras'
    `ExponentialDecay`."""
    _require("schedule decay_steps", decay_steps, decay_steps > 0, "a number above 0")

    def schedule(step):
        exponent = step / decay_steps
        return learning_rate * decay_rate ** (jnp.floor(exponent) if staircase else exponent)

    return schedule


def cosine(learning_rate: float, warmup_steps: int = 0, final_fraction: float = 0.0, *, total_steps: int
           ) -> optax.Schedule:
    """Up in a line over `warmup_steps` updates, then down along half a cosine, to reach
    `final_fraction * learning_rate` after `total_steps` (Loshchilov and Hutter 2017, without restarts)."""
    _require("schedule warmup_steps", warmup_steps, 0 <= warmup_steps < total_steps,
             f"at least 0 and fewer than the {total_steps} steps of the training")
    _require("schedule final_fraction", final_fraction, 0 <= final_fraction <= 1, "a fraction from 0 to 1")
    down = optax.cosine_decay_schedule(learning_rate, total_steps - warmup_steps, final_fraction)

    def schedule(step):
        # Step 0 already learns, so the line starts one step above zero.
        return jnp.where(step < warmup_steps, learning_rate * (step + 1) / (warmup_steps + 1),
                         down(step - warmup_steps))

    return schedule


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "constant": constant, "inverse_time": inverse_time, "exponential": exponential, "cosine": cosine}


def from_config(table: Mapping[str, Callable], config: Mapping[str, Any] | ConfigDict, what: str, **given: Any
                ) -> Any:
    """Calls the entry of `table` named `config["name"]` with the other items of `config` and with `given`.

    Raises:
      InputError: no such name, an option that the entry does not have, or a needed one that is missing.
    """
    options = dict(config)
    name = options.pop("name", None)
    if name not in table:
        raise InputError(f"{what} {name!r} is not known; known are {', '.join(table)}")
    parameters = inspect.signature(table[name]).parameters
    known = {key: option for key, option in parameters.items() if key not in given}
    for key in options:
        if key not in known:
            raise InputError(f"{what} {name!r} has no option {key!r}; it has {', '.join(known)}")
    for key, option in known.items():
        if option.default is option.empty and key not in options:
            raise InputError(f"{what} {name!r} needs the option {key!r}, which is missing")
        if key in options and not isinstance(options[key], int | float):
            raise InputError(f"{what} {name!r}: {key} = {options[key]!r}, expected a number")
        if key in options and option.annotation is float:
            options[key] = float(options[key])
    return table[name](**options, **given)


def _require(what: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"{what} = {value!r}: expected {expected}")
