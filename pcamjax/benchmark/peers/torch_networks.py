"""Networks of Keras in PyTorch: translated layer by layer from the description that Keras gives of a model.

Nothing is slowed down by padding as TensorFlow pads: the same windows are had from a layer's own `padding` or
`ceil_mode`, and a network that pads at the bottom right alone, as MobileNet does, is built turned by 180 degrees,
images and kernels, for PyTorch can pad at the top left alone at no cost.
"""

import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import fx, nn

Weights = Mapping[str, Mapping[str, np.ndarray]]


class TorchNetwork(NamedTuple):
    """A module from channels_last images to logits.

    Attributes:
      turned: it wants its images turned by 180 degrees.
    """

    module: fx.GraphModule
    turned: bool

    def images(self, inputs: np.ndarray) -> torch.Tensor:
        """Preprocessed images [B,H,W,3] as the module takes them."""
        inputs = np.ascontiguousarray(inputs[:, ::-1, ::-1]) if self.turned else inputs
        return torch.from_numpy(inputs).permute(0, 3, 1, 2)  # of this NHWC memory, which is channels_last


def translate(description: Mapping[str, Any], weights: Weights, frozen: frozenset[str] = frozenset()) -> TorchNetwork:
    """The module of a Keras description (`model.get_config()` of a functional model with one input and output).

    Args:
      weights: our variables by layer and role: kernel [h,w,C,F], depthwise_kernel [h,w,1,C], pointwise_kernel, bias,
        scale, mean, var.
      frozen: names of layers whose parameters are not trained; call `train_mode` for their BatchNorm to know.
    Raises:
      ValueError: a layer that is not known here, or windows that PyTorch's own layers cannot have.
    """
    translation = _Translation(description["layers"], weights)
    graph, modules = fx.Graph(), translation.modules
    nodes: dict[str, fx.Node] = {}
    for layer in description["layers"]:
        name = layer["name"]
        nodes[name] = translation.add(graph, layer, [nodes[source] for source in translation.sources[name]])
    graph.output(nodes[name])  # Keras lists the output last
    module = fx.GraphModule(modules, graph).to(memory_format=torch.channels_last)
    for name, layer in module.named_modules():
        if name.partition("__")[0] in frozen:
            layer.requires_grad_(False)
    return TorchNetwork(module, translation.turned)


def train_mode(module: nn.Module, frozen: frozenset[str]) -> None:
    """Training mode, in which a frozen BatchNorm goes on with its stored statistics."""
    module.train()
    for name, layer in module.named_modules():
        if name in frozen:
            layer.eval()


class _Windows(NamedTuple):
    """Windows along an axis of `length` with so much padding; `steps` is how many there are after the first."""

    length: int
    size: int
    stride: int
    steps: int
    before: int
    after: int

    def fits(self, ceil_mode: bool) -> bool:
        """Whether a layer of PyTorch, which pads by `before` on both sides, has just these windows."""
        reach = self.length + 2 * self.before - self.size
        if ceil_mode:  # also a window that reaches out at the end, if it begins inside
            return 0 <= self.before and -(-reach // self.stride) == self.steps and (
                self.steps * self.stride < self.length + self.before)
        return 0 <= self.before and reach // self.stride == self.steps


class _Translation:
    """The layers of one network, one method a kind; `modules` are those made so far."""

    def __init__(self, layers: list[Mapping[str, Any]], weights: Weights):
        self.weights, self.modules = weights, {}
        self.kinds = {layer["name"]: layer["class_name"] for layer in layers}
        self.sources = {layer["name"]: [name for name, _ in _inputs(layer)] for layer in layers}
        self.readers = Counter(name for names in self.sources.values() for name in names)
        self.margins = {layer["name"]: _margin(layer) for layer in layers if layer["class_name"] == "ZeroPadding2D"}
        self.turned = any(after > before for before, after in self.margins.values())

    def add(self, graph: fx.Graph, layer: Mapping[str, Any], sources: list[fx.Node]) -> fx.Node:
        """Adds the nodes of a layer; a padding adds none, for its reader pads."""
        name, kind, config = layer["name"], layer["class_name"], layer["config"]
        if kind == "InputLayer":
            return graph.placeholder("images")
        if kind == "ZeroPadding2D":
            return sources[0]
        if kind in ("Add", "Concatenate"):
            return self._join(graph, layer, sources)
        if kind == "GlobalAveragePooling2D":
            return graph.call_method("mean", (sources[0], (2, 3)))
        if kind == "Flatten":
            if self.turned:
                raise ValueError(f"{name}: a turned map cannot be flattened")
            return graph.call_method("flatten", (graph.call_method("permute", (sources[0], 0, 2, 3, 1)), 1))
        makers = {"Conv2D": self._conv, "DepthwiseConv2D": self._depthwise, "SeparableConv2D": self._separable,
                  "Dense": self._dense, "BatchNormalization": self._batch_norm, "Activation": self._activation,
                  "ReLU": self._relu, "MaxPooling2D": self._max_pool, "AveragePooling2D": self._average_pool,
                  "Dropout": self._dropout}
        if kind not in makers:
            raise ValueError(f"{name}: layers of the kind {kind} are not known here")
        node = sources[0]
        for step, made in enumerate(makers[kind](layer)):
            called = f"{name}__{step}" if step else name
            self.modules[called] = made
            node = graph.call_module(called, (node,))
        if kind not in ("Activation", "ReLU") and config.get("activation", "linear") != "linear":
            self.modules[f"{name}__activation"] = _activation(config["activation"], inplace=True)
            node = graph.call_module(f"{name}__activation", (node,))
        return node

    def _join(self, graph: fx.Graph, layer: Mapping[str, Any], sources: list[fx.Node]) -> fx.Node:
        if layer["class_name"] == "Concatenate":
            return graph.call_function(torch.cat, (sources, 1))
        # As is usual in PyTorch, into what a BatchNorm has put out, if nothing else reads that.
        for name, into, other in zip(self.sources[layer["name"]], sources, reversed(sources), strict=True):
            if self.readers[name] == 1 and self.kinds[name] == "BatchNormalization":
                return graph.call_function(operator.iadd, (into, other))
        return graph.call_function(operator.add, tuple(sources))

    def _conv(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        yield from self._convolution(layer, "kernel", layer["config"]["use_bias"])

    def _depthwise(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        yield from self._convolution(layer, "depthwise_kernel", layer["config"]["use_bias"])

    def _separable(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        yield from self._convolution(layer, "depthwise_kernel", False)
        yield _convolution(self.weights[layer["name"]], "pointwise_kernel", layer["config"]["use_bias"])

    def _convolution(self, layer: Mapping[str, Any], role: str, use_bias: bool) -> Iterator[nn.Module]:
        config = layer["config"]
        padding, _ = self._padding(layer, config["kernel_size"])
        yield _convolution(self.weights[layer["name"]], role, use_bias, tuple(config["strides"]), padding, self.turned)

    def _max_pool(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        config = layer["config"]
        padding, ceil_mode = self._padding(layer, config["pool_size"])
        yield nn.MaxPool2d(tuple(config["pool_size"]), tuple(config["strides"]), padding, ceil_mode=ceil_mode)

    def _average_pool(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        config = layer["config"]
        padding, _ = self._padding(layer, config["pool_size"])
        yield nn.AvgPool2d(tuple(config["pool_size"]), tuple(config["strides"]), padding, count_include_pad=False)

    def _padding(self, layer: Mapping[str, Any], sizes: Sequence[int]) -> tuple[tuple[int, ...], bool]:
        """The padding, and for a max-pool the `ceil_mode`, by which a layer of PyTorch has Keras' windows."""
        windows = self._windows(layer, sizes)
        for ceil_mode in (False, True)[: 2 if layer["class_name"] == "MaxPooling2D" else 1]:
            if all(axis.fits(ceil_mode) for axis in windows):
                return tuple(axis.before for axis in windows), ceil_mode
        raise ValueError(f"{layer['name']}: PyTorch cannot pad it by {[(axis.before, axis.after) for axis in windows]}")

    def _windows(self, layer: Mapping[str, Any], sizes: Sequence[int]) -> list[_Windows]:
        """Where Keras puts the windows of a layer, down and across."""
        ((source, shape),), same = _inputs(layer), layer["config"]["padding"] == "same"
        margin = self.margins.get(source, (0, 0))
        if source in self.margins and layer["class_name"] == "MaxPooling2D":
            behind = self.kinds[self.sources[source][0]]
            if behind not in ("Activation", "ReLU"):
                raise ValueError(f"{layer['name']}: zeros around what {behind} puts out may be its largest values")
        windows = []
        for length, window, stride in zip(shape[1:3], sizes, layer["config"]["strides"], strict=True):
            length, (before, after) = length - sum(margin), margin
            if same:
                total = max((-(-length // stride) - 1) * stride + window - length, 0)
                before, after = total // 2, total - total // 2
            steps, rest = divmod(length + before + after - window, stride)
            before, after = (after - rest, before) if self.turned else (before, after)
            windows.append(_Windows(length, window, stride, steps, before, after))
        return windows

    def _dense(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        values = self.weights[layer["name"]]
        made = nn.utils.skip_init(nn.Linear, *values["kernel"].shape)
        _fill(made.weight, values["kernel"].T)
        _fill(made.bias, values["bias"])
        yield made

    def _batch_norm(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        values, config = self.weights[layer["name"]], layer["config"]
        made = nn.BatchNorm2d(len(values["mean"]), eps=config["epsilon"], momentum=1 - config["momentum"])
        for ours, theirs in (("mean", "running_mean"), ("var", "running_var"), ("scale", "weight"), ("bias", "bias")):
            if ours in values:
                _fill(getattr(made, theirs), values[ours])
        made.weight.requires_grad_("scale" in values)  # InceptionV3's has none
        yield made

    def _activation(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        yield _activation(layer["config"]["activation"], self._inplace(layer))

    def _relu(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        limit = layer["config"]["max_value"]
        if limit not in (None, 6):
            raise ValueError(f"{layer['name']}: a ReLU up to {limit} is not known here")
        yield _activation("relu6" if limit else "relu", self._inplace(layer))

    def _inplace(self, layer: Mapping[str, Any]) -> bool:
        """Whether nothing else reads what the layer reads, the gradient's computation included."""
        (source,) = self.sources[layer["name"]]
        return self.readers[source] == 1 and self.kinds[source] in ("BatchNormalization", "Add", "Conv2D")

    def _dropout(self, layer: Mapping[str, Any]) -> Iterator[nn.Module]:
        yield nn.Dropout(layer["config"]["rate"])


def _convolution(values: Mapping[str, np.ndarray], role: str, use_bias: bool, strides: tuple[int, ...] = (1, 1),
                 padding: tuple[int, ...] = (0, 0), turned: bool = False) -> nn.Conv2d:
    """The convolution by a kernel [h,w,C,F], or by a depthwise one [h,w,1,C]."""
    kernel = values[role][::-1, ::-1] if turned else values[role]
    height, width, inputs, filters = kernel.shape
    groups = filters if role == "depthwise_kernel" else 1
    made = nn.utils.skip_init(nn.Conv2d, inputs * groups, filters, (height, width), strides, padding, groups=groups,
                              bias=use_bias)
    _fill(made.weight, kernel.transpose(3, 2, 0, 1))
    if use_bias:
        _fill(made.bias, values["bias"])
    return made


def _activation(name: str, inplace: bool) -> nn.Module:
    return {"relu": nn.ReLU, "relu6": nn.ReLU6}[name](inplace)


def _fill(tensor: torch.Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        tensor.copy_(torch.tensor(np.ascontiguousarray(values)))


def _inputs(layer: Mapping[str, Any]) -> list[tuple[str, tuple[int | None, ...]]]:
    """Names and shapes [B,H,W,C] of what a layer reads."""
    def tensors(value: Any) -> Iterator[tuple[str, tuple[int | None, ...]]]:
        if isinstance(value, dict) and "keras_history" in value:
            yield value["keras_history"][0], tuple(value["shape"])
        elif isinstance(value, dict | list | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                yield from tensors(item)

    return list(tensors([node["args"] for node in layer["inbound_nodes"]]))


def _margin(layer: Mapping[str, Any]) -> tuple[int, int]:
    """The rows and columns that a ZeroPadding2D adds before and after."""
    rows, columns = (tuple(sides) for sides in layer["config"]["padding"])
    if rows != columns:
        raise ValueError(f"{layer['name']}: pads rows and columns differently, which is not known here")
    return rows

