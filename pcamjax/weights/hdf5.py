"""The three kinds of files that Keras has kept weights in, each read as a list of layers, without their values.

Legacy HDF5 lists layers and tensors by name, in order (keras/src/legacy/saving/legacy_h5_format.py); Keras 3's HDF5
numbers them within each class (keras/src/saving/saving_lib.py); a .keras file is a zip archive with one of these.
Links are not followed, so that nothing outside the file is ever opened.
"""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import h5py
import numpy as np

from pcamjax.errors import InputError
from pcamjax.models.layers import numbered
from pcamjax.weights.names import canonical, split_name
from pcamjax.weights.tensors import KerasLayer

MOST_OBJECTS = 20_000  # in a file, or names in an attribute; DenseNet201 with its optimizer's state has 6000
MOST_TENSORS = 4  # in one layer: those of a BatchNormalization
KERAS_MEMBER = "model.weights.h5"
# layers/conv2d_3/vars/0, with a nested model's path before it; TensorFlow 2.13 has another word for "layers".
NUMBERED = re.compile(r"(?:\w+/layers/)*(?P<stem>\w+?)(?:_(?P<number>\d+))?/vars/(?P<index>\d+)")
LAYERS = re.compile(r"(?:layers|_layer_checkpoint_dependencies)/")
# What Keras keeps beside the network: the state of its training, and of the random numbers of Dropout.
NOT_WEIGHTS = re.compile(r"_?(?:optimizer|metrics|compile_metrics|loss_tracker)/.*|.*/seed_generator(?:_\d+)?/vars/\d+")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its name and shape there, and the data, which can be read while the file is open."""

    name: str
    shape: tuple[int, ...]
    data: h5py.Dataset

    @property
    def scope(self) -> str | None:
        """The layer that the name tells, if it tells any."""
        return split_name(self.name)[0]

    @property
    def role(self) -> str | None:
        """What the tensor is, if the name tells it."""
        return split_name(self.name)[1]


@dataclass(frozen=True)
class StoredLayer:
    """A layer in a file, with its tensors in the file's order; in some files it has no name."""

    name: str | None
    tensors: tuple[StoredTensor, ...]

    def __str__(self) -> str:
        return repr(self.name or self.tensors[0].name.removesuffix("/vars/0"))


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike, largest: int) -> Iterator[h5py.File]:
    """Opens an HDF5 file, or the one in a .keras archive if it has at most `largest` bytes; the content tells which.

    Raises:
      InputError: the one in the archive is larger.
      OSError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error: the file is not readable.
    """
    with open(path, "rb") as start:
        zipped = start.read(4) == b"PK\x03\x04"
    if not zipped:
        with h5py.File(path, "r") as file:
            yield file
        return
    with contextlib.ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        size = archive.getinfo(KERAS_MEMBER).file_size
        if size > largest:
            raise InputError(f"its {KERAS_MEMBER} has {size} bytes, more than {largest}")
        whole = stack.enter_context(tempfile.TemporaryFile())
        with archive.open(KERAS_MEMBER) as member:
            shutil.copyfileobj(member, whole)
        yield stack.enter_context(h5py.File(whole, "r"))


def read_layers(file: h5py.File, expected: Sequence[KerasLayer]) -> list[StoredLayer]:
    """The layers of a file that keep tensors, in Keras' order, as far as the file tells it, else in that of `expected`.

    Raises:
      InputError: there are none, or there is something that is neither a layer's nor the training's.
    """
    objects: dict[str, h5py.HLObject] = {}

    def add(name: str, node: h5py.HLObject) -> bool | None:
        objects[name.replace("\\", "/")] = node
        return True if len(objects) > MOST_OBJECTS else None

    file.visititems(add)
    if len(objects) > MOST_OBJECTS:
        raise InputError(f"more than {MOST_OBJECTS} objects inside, which is no file of weights")
    for prefix, group in (("", file), ("model_weights/", objects.get("model_weights"))):
        if group is not None and any(name in group.attrs for name in ("layer_names", "layer_names0")):
            inside = {name.removeprefix(prefix): node for name, node in objects.items() if name.startswith(prefix)}
            layers = _named_layers(group, inside, expected)
            break
    else:
        layers = _numbered_layers(objects, expected)
    if not layers:
        raise InputError("no layers with tensors inside")
    return layers


def _named_layers(group: h5py.Group, objects: dict[str, h5py.HLObject], expected: Sequence[KerasLayer]
                  ) -> list[StoredLayer]:
    datasets = {name: node for name, node in objects.items() if isinstance(node, h5py.Dataset)}
    layers = []
    for name in _names(group, "layer_names"):
        if not isinstance(objects.get(name), h5py.Group):
            raise InputError(f"layer {name!r} is listed, but not there or only as a link")
        tensors = []
        for tensor in _names(objects[name], "weight_names"):
            if f"{name}/{tensor}" not in datasets:
                raise InputError(f"{tensor} is listed, but not there or only as a link")
            tensors.append(_tensor(tensor, datasets.pop(f"{name}/{tensor}")))
        if tensors:
            layers += _unnested(StoredLayer(name, tuple(tensors)), expected)
    if datasets:
        raise InputError(f"{min(datasets)!r} is there, but belongs to no layer")
    return layers


def _unnested(layer: StoredLayer, expected: Sequence[KerasLayer]) -> list[StoredLayer]:
    """The layers of a model that was saved as one layer of another; their names are in those of the tensors.

    Keras lists what is trained before what is frozen, hence the sorting by name.
    """
    if len(layer.tensors) <= MOST_TENSORS or None in [tensor.scope for tensor in layer.tensors]:
        return [layer]
    inner: dict[str, list[StoredTensor]] = {}
    for tensor in layer.tensors:
        inner.setdefault(tensor.scope, []).append(tensor)
    position = {name: i for i, name in enumerate(canonical([layer.name for layer in expected]))}
    order = {scope: position.get(name, -1) for scope, name in zip(inner, canonical(list(inner)), strict=True)}
    if min(order.values()) < 0:
        order = dict.fromkeys(inner, 0)
    return [StoredLayer(scope, tuple(inner[scope])) for scope in sorted(inner, key=order.__getitem__)]


def _numbered_layers(objects: dict[str, h5py.HLObject], expected: Sequence[KerasLayer]) -> list[StoredLayer]:
    found: dict[tuple[str, int], dict[int, StoredTensor]] = {}
    names: dict[tuple[str, int], str | None] = {}
    for path, node in objects.items():
        if not isinstance(node, h5py.Dataset) or NOT_WEIGHTS.fullmatch(path):
            continue
        start = LAYERS.match(path)
        match = start and NUMBERED.fullmatch(path, start.end())
        if not match:
            raise InputError(f"{path!r} is there, but belongs to no layer")
        key, index = (match["stem"], int(match["number"] or 0)), int(match["index"])
        if index in found.setdefault(key, {}):
            raise InputError(f"{path} and {found[key][index].name} are both there")
        found[key][index] = _tensor(path, node)
        name = objects[path.rpartition("/")[0]].attrs.get("name")
        names[key] = name if isinstance(name, str) else None
    for (stem, number), tensors in found.items():
        if max(tensors) >= len(tensors):
            raise InputError(f"layers/{numbered(stem, number)} has the tensor {max(tensors)}, but not all before it")
        if number and (stem, number - 1) not in found:
            raise InputError(f"layers/{numbered(stem, number)} is there, but not layers/{numbered(stem, number - 1)}")
    made: Counter[str] = Counter()
    order: dict[tuple[str, int], None] = {}
    for layer in expected:
        order[layer.stem, made[layer.stem]] = None
        made[layer.stem] += 1
    keys = [key for key in order if key in found] + sorted(found.keys() - order.keys())
    return [StoredLayer(names[key], tuple(found[key][i] for i in sorted(found[key]))) for key in keys]


def _tensor(name: str, data: h5py.Dataset) -> StoredTensor:
    return StoredTensor(name, data.shape or (), data)


def _names(node: h5py.Group, attribute: str) -> list[str]:
    """The strings of an attribute, which long lists are spread over several of: name0, name1, ..."""
    parts = itertools.takewhile(node.attrs.__contains__, (f"{attribute}{i}" for i in itertools.count()))
    names: list[str] = []
    for key in [attribute] if attribute in node.attrs else parts:
        stored = node.attrs.get_id(key)
        if 0 in stored.shape:
            continue
        if stored.get_type().get_class() != h5py.h5t.STRING or prod(stored.shape) > MOST_OBJECTS:
            raise InputError(f"{key} of {node.name!r} is no list of names")
        names += [name.decode() if isinstance(name, bytes) else name for name in np.ravel(node.attrs[key]).tolist()]
    if not all(name.isprintable() for name in names):
        raise InputError(f"{attribute} of {node.name!r} has names that are not printable")
    return names
