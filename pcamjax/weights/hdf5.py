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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pcamjax.errors import InputError
from pcamjax.files import open_zip, require_file
from pcamjax.hdf5 import Hdf5File, Node
from pcamjax.models.layers import numbered
from pcamjax.weights.names import canonical, split_name
from pcamjax.weights.tensors import KerasLayer

LARGEST_FILE = 4 << 30  # bytes; VGG19 with its classifier and an optimizer's two moments has 1.7e9
MOST_TENSORS = 4  # in one layer: those of a BatchNormalization
KERAS_MEMBER = "model.weights.h5"
# layers/conv2d_3/vars/0, with a nested model's path before it; TensorFlow 2.13 has another word for "layers".
NUMBERED = re.compile(r"(?:\w+/layers/)*(?P<stem>\w+?)(?:_(?P<number>\d+))?/vars/(?P<index>\d+)")
LAYERS = re.compile(r"(?:layers|_layer_checkpoint_dependencies)/")
# What Keras keeps beside the network: the state of its training, and of the random numbers of Dropout.
NOT_WEIGHTS = re.compile(r"_?(?:optimizer|metrics|compile_metrics|loss_tracker)/.*|.*/seed_generator(?:_\d+)?/vars/\d+")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its name, and where and how it is stored there."""

    name: str
    path: str
    node: Node

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the file."""
        return self.node.shape

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
def open_hdf5(path: str | os.PathLike, largest: int) -> Iterator[Hdf5File]:
    """Opens an HDF5 file, or the one in a .keras archive if it has at most `largest` bytes; the content tells which.

    Raises:
      InputError: the one in the archive is larger, or the archive is none that Keras writes.
      UnreadableError, OSError, KeyError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error: the file
        is not readable.
    """
    require_file(path, LARGEST_FILE)
    with open(path, "rb") as start:
        zipped = start.read(4) == b"PK\x03\x04"
    with contextlib.ExitStack() as stack:
        if zipped:
            archive = stack.enter_context(open_zip(path, LARGEST_FILE))
            size = archive.getinfo(KERAS_MEMBER).file_size
            if size > largest:
                raise InputError(f"its {KERAS_MEMBER} has {size} bytes, more than {largest}")
            whole = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".keras-"))
            with archive.open(KERAS_MEMBER) as member:
                shutil.copyfileobj(member, whole)
            whole.flush()
            path = whole.name
        yield stack.enter_context(Hdf5File(path, ("layer_names", "weight_names", "name")))


def read_layers(file: Hdf5File, expected: Sequence[KerasLayer]) -> list[StoredLayer]:
    """The layers of a file that keep tensors, in Keras' order, as far as the file tells it, else in that of `expected`.

    Raises:
      InputError: there are none, or there is something that is neither a layer's nor the training's.
    """
    for prefix in ("", "model_weights/"):
        root = file.nodes.get(prefix.removesuffix("/"))
        if root is not None and root.names.keys() & {"layer_names", "layer_names0"}:
            inside = [path for path in file.nodes if path.startswith(prefix) and path.strip("/") != prefix.strip("/")]
            layers = _named_layers(file.nodes, prefix, inside, expected)
            break
    else:
        layers = _numbered_layers(file.nodes, expected)
    if not layers:
        raise InputError("no layers with tensors inside")
    return layers


def _named_layers(nodes: dict[str, Node], prefix: str, inside: list[str], expected: Sequence[KerasLayer]
                  ) -> list[StoredLayer]:
    # Keras on Windows has written backslashes into names.
    paths = {path.removeprefix(prefix).replace("\\", "/"): path for path in inside}
    tensors_left = {name: path for name, path in paths.items() if nodes[path].is_dataset}
    layers = []
    for name in _names(nodes, prefix.removesuffix("/"), "layer_names"):
        if name not in paths or nodes[paths[name]].is_dataset:
            raise InputError(f"layer {name!r} is listed, but not there or only as a link")
        tensors = []
        for tensor in _names(nodes, paths[name], "weight_names"):
            if f"{name}/{tensor}" not in tensors_left:
                raise InputError(f"{tensor} is listed, but not there or only as a link")
            path = tensors_left.pop(f"{name}/{tensor}")
            tensors.append(StoredTensor(tensor, path, nodes[path]))
        if tensors:
            layers += _unnested(StoredLayer(name, tuple(tensors)), expected)
    if tensors_left:
        raise InputError(f"{min(tensors_left)!r} is there, but belongs to no layer")
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


def _numbered_layers(nodes: dict[str, Node], expected: Sequence[KerasLayer]) -> list[StoredLayer]:
    found: dict[tuple[str, int], dict[int, StoredTensor]] = {}
    names: dict[tuple[str, int], str | None] = {}
    for stored, node in nodes.items():
        path = stored.replace("\\", "/")
        if not node.is_dataset or NOT_WEIGHTS.fullmatch(path):
            continue
        start = LAYERS.match(path)
        match = start and NUMBERED.fullmatch(path, start.end())
        if not match:
            raise InputError(f"{path!r} is there, but belongs to no layer")
        key, index = (match["stem"], int(match["number"] or 0)), int(match["index"])
        if index in found.setdefault(key, {}):
            raise InputError(f"{path} and {found[key][index].name} are both there")
        found[key][index] = StoredTensor(path, stored, node)
        name = nodes[stored[:path.rindex("/")]].names.get("name") or []
        names[key] = name[0] if len(name) == 1 else None
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


def _names(nodes: dict[str, Node], path: str, attribute: str) -> list[str]:
    """The strings of an attribute, which long lists are spread over several of: name0, name1, ..."""
    stored = nodes[path].names
    parts = itertools.takewhile(stored.__contains__, (f"{attribute}{i}" for i in itertools.count()))
    names: list[str] = []
    for key in [attribute] if attribute in stored else parts:
        if stored[key] is None:
            raise InputError(f"{key} of {'/' + path!r} is no list of names")
        names += stored[key]
    if not all(name.isprintable() for name in names):
        raise InputError(f"{attribute} of {'/' + path!r} has names that are not printable")
    return names
