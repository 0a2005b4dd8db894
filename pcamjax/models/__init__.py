"""The networks, in one table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.models.network import Network
from pcamjax.models.plain import scratch1
from pcamjax.models.residual import scratch2, scratch3


@dataclass(frozen=True)
class ModelSpec:
    """What the rest of the project has to know about a network.

    Attributes:
      build: makes the linen module. For training it takes `axis_name`, the mapped axis that splits the global batch,
        and `batch_norm_momentum`, the weight of the old moving average.
      preprocess: maps pixels in 0..255 to the network's input.
      activation: what turns the two logits into outputs.
      cam_layer: the layer whose map equals the output of `features` in evaluation mode.
      parameters: all, and those that are trained (BatchNorm's moving statistics are not), as published.
    """

    build: Callable[..., Network]
    preprocess: Callable[[Float[Array, "b h w 3"]], Float[Array, "b h w 3"]]
    activation: Literal["softmax", "sigmoid"]
    cam_layer: str
    parameters: tuple[int, int]


def unit_range(pixels: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """0..255 to 0..1."""
    return pixels / 255


MODELS: dict[str, ModelSpec] = {
    "scratch1": ModelSpec(scratch1, unit_range, "softmax", "block3_dropout", (4_549_538, 4_548_642)),
    "scratch2": ModelSpec(scratch2, unit_range, "softmax", "block6_out", (34_403_106, 34_362_786)),
    "scratch3": ModelSpec(scratch3, unit_range, "softmax", "block6_out", (35_172_066, 35_129_826)),
}


def model_spec(name: str) -> ModelSpec:
    """The table's entry for `name`.

    Raises:
      InputError: there is no such network; the message lists those there are.
    """
    if name not in MODELS:
        raise InputError(f"network {name!r} is not known; choose one of {', '.join(MODELS)}")
    return MODELS[name]


def create(name: str) -> Network:
    """The linen module of the network `name`; initialise it with [B,96,96,3] float32 images.

    Raises:
      InputError: there is no such network.
    """
    return model_spec(name).build()
