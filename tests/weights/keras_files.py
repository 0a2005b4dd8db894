"""Files of weights as the generations of Keras wrote them, with random values, made by h5py alone."""

from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from pcamjax.weights.tensors import with_tensors

KERAS_1 = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}


class Layer(NamedTuple):
    """One layer of a file: its name, and its tensors by their names, in order."""

    name: str
    tensors: dict[str, np.ndarray]


def random_layers(model_name, seed=0, imagenet=False):
    """A network's layers with random values, tensors named by their roles alone."""
    rng = np.random.default_rng(seed)
    return [Layer(layer.name, {tensor.role: rng.random(tensor.shape, np.float32)
                               for tensor in layer.tensors})
            for layer in with_tensors(model_name, imagenet=imagenet)]


def backbone(layers, model_name):
    """The first of these layers, up to the classifier."""
    return layers[:sum(layer.in_backbone for layer in with_tensors(model_name))]


def renamed(layers, of_tensor=lambda layer, role: f"{layer}/{role}", of_layer=str):
    """Layers under other names, tensors with the names that files have."""
    return [Layer(of_layer(layer.name), {of_tensor(of_layer(layer.name), role): values
                                         for role, values in layer.tensors.items()}) for layer in layers]


def keras_1(layer, role):
    """VGG19's published file: block1_conv1_W_1:0."""
    return f"{layer}_{KERAS_1.get(role, role)}_1:0"


def keras_2(layer, role):
    return f"{layer}/{role}:0"


def keras_3(layer, role):
    """Without :0, and a depthwise kernel is just a kernel."""
    return f"{layer}/{'kernel' if role == 'depthwise_kernel' and layer.startswith('conv_dw') else role}"


def write_legacy(path, layers, under=None, split=False):
    """Legacy HDF5, at the root or in a group; with `split` the lists of names spread over several attributes."""
    def put(node, attribute, names):
        parts = np.array_split(np.array(names, "S"), 3) if split else [names]
        for i, part in enumerate(parts):
            node.attrs[f"{attribute}{i}" if split else attribute] = part

    with h5py.File(path, "w") as file:
        root = file.create_group(under) if under else file
        put(root, "layer_names", ["input_1", *(layer.name for layer in layers)])
        root.create_group("input_1").attrs["weight_names"] = []
        for layer in layers:
            group = root.require_group(layer.name)
            put(group, "weight_names", list(layer.tensors))
            for name, values in layer.tensors.items():
                group[name] = values
    return Path(path)


def write_numbered(path, model_name, layers, inside="layers", names=True, imagenet=False):
    """Keras 3's HDF5: a number for each layer of a class; without `names` as its first releases wrote it."""
    made = {}
    with h5py.File(path, "w") as file:
        for expected, layer in zip(with_tensors(model_name, imagenet=imagenet), layers, strict=False):
            number = made[expected.stem] = made.get(expected.stem, -1) + 1
            where = "layers" if not expected.in_backbone else inside
            group = file.create_group(f"{where}/{expected.stem}{f'_{number}' if number else ''}/vars")
            if names:
                group.attrs["name"] = layer.name
            for i, values in enumerate(layer.tensors.values()):
                group[str(i)] = values
    return Path(path)
