"""What Keras keeps of a network: its layers and their tensors in Keras' order, and where these are in our variables."""

import re
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from pcamjax.models import model_spec
from pcamjax.models.graph import keras_order, layer_graph
from pcamjax.models.variables import variable_shapes

Path = tuple[str, ...]
Values = TypeVar("Values", np.ndarray, jax.Array)

# By our class of a layer: Keras' class, and Keras' name of each tensor with ours, in Keras' order.
CLASSES: dict[str, tuple[str, dict[str, Path]]] = {
    "Conv": ("Conv2D", {"kernel": ("params", "kernel"), "bias": ("params", "bias")}),
    "DepthwiseConv": ("DepthwiseConv2D", {"depthwise_kernel": ("params", "depthwise_kernel")}),
    "SeparableConv": ("SeparableConv2D", {"depthwise_kernel": ("params", "depthwise_kernel"),
                                          "pointwise_kernel": ("params", "pointwise_kernel")}),
    "Dense": ("Dense", {"kernel": ("params", "kernel"), "bias": ("params", "bias")}),
    "BatchNorm": ("BatchNormalization", {"gamma": ("params", "scale"), "beta": ("params", "bias"),
                                         "moving_mean": ("batch_stats", "mean"),
                                         "moving_variance": ("batch_stats", "var")}),
}


class Tensor(NamedTuple):
    """One tensor of a layer: Keras' name and shape of it, and its path in our variables."""

    role: str
    shape: tuple[int, ...]
    path: Path


@dataclass(frozen=True)
class KerasLayer:
    """A layer as Keras has it: name, class (ours, where it keeps no tensors), and tensors in Keras' order."""

    name: str
    kind: str
    tensors: tuple[Tensor, ...]
    in_backbone: bool

    @property
    def stem(self) -> str:
        """What Keras calls layers of this class: conv2d, batch_normalization, ..."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.kind).lower()


@cache
def keras_layers(model_name: str, *, imagenet: bool = False) -> tuple[KerasLayer, ...]:
    """All layers of a network, or of its form for ImageNet's classes, in the order of Keras' `model.layers`.

    The input layer is left out.

    Raises:
      InputError: there is no such network.
    """
    spec = model_spec(model_name)
    network, size = (spec.build(imagenet=True), spec.native_size) if imagenet else (spec.build(), 96)
    shapes = variable_shapes(model_name, imagenet=imagenet)
    layers = []
    for layer in keras_order(layer_graph(network, size, train=False)):
        kind, names = CLASSES.get(layer.kind, (layer.kind, {}))
        tensors = []
        for role, (collection, name) in names.items():
            node = shapes[collection]
            for key in layer.path:
                node = node.get(key, {})
            if name in node:
                value = jax.eval_shape(partial(swap_axes, role), node[name])
                tensors.append(Tensor(role, value.shape, (collection, *layer.path, name)))
        layers.append(KerasLayer(layer.name, kind, tuple(tensors), layer.path[0] == "backbone"))
    return tuple(layers)


def with_tensors(model_name: str, *, imagenet: bool = False) -> list[KerasLayer]:
    """The layers of a network that keep tensors, in Keras' order."""
    return [layer for layer in keras_layers(model_name, imagenet=imagenet) if layer.tensors]


def swap_axes(role: str, values: Values) -> Values:
    """From Keras' axes to ours or back: only depthwise kernels differ, (h,w,c,1) there and (h,w,1,c) here."""
    return values.swapaxes(2, 3) if role == "depthwise_kernel" else values
