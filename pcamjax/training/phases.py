"""The stretches of a run: the classifier alone first, if the configuration says so, then as much as it trains."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax

from pcamjax.errors import InputError
from pcamjax.models import frozen_layers
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.schedules import make_schedule


@dataclass(frozen=True)
class Phase:
    """The steps after `first_step` up to `last_step`, all with one optimizer, whose state begins anew.

    Attributes:
      frozen: names of the layers that are not trained.
      schedule: the learning rate as a function of the phase's own steps, the first being 0.
    """

    name: str
    first_step: int
    last_step: int
    frozen: frozenset[str]
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule


def make_phases(config: Mapping[str, Any], steps_per_epoch: int) -> list[Phase]:
    """The phases of a run: `head.epochs` with all of the backbone frozen, then `epochs` with `model.frozen` frozen.

    Raises:
      InputError: an optimizer that is not possible, or layers to freeze that the network does not have.
    """
    name, phases = config["model"]["name"], []
    for phase, epochs, frozen, optimizer in (
            ("head", config["head"]["epochs"], "backbone", config["head"]["optimizer"]),
            ("network", config["epochs"], config["model"]["frozen"], config["optimizer"])):
        if epochs < 0:
            raise InputError(f"config.head.epochs = {epochs}: expected at least 0")
        if epochs:
            first, steps = phases[-1].last_step if phases else 0, epochs * steps_per_epoch
            phases.append(Phase(phase, first, first + steps, frozen_layers(name, frozen),
                                make_optimizer(optimizer, steps), make_schedule(optimizer["schedule"], steps)))
    return phases
