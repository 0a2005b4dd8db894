"""From a file of weights to our variables: by order, every shape compared, every name that tells anything compared."""

import hashlib
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32

from pcamjax.errors import InputError, one_line
from pcamjax.files import require_file
from pcamjax.hdf5 import Hdf5File
from pcamjax.isolation import UnreadableError
from pcamjax.models import MODELS, model_spec
from pcamjax.models.variables import variable_shapes
from pcamjax.weights.hdf5 import LARGEST_FILE, StoredLayer, StoredTensor, open_hdf5, read_layers
from pcamjax.weights.names import AUTOMATIC, IMAGENET, canonical, names_another, same_layer, same_role
from pcamjax.weights.tensors import KerasLayer, Path, Tensor, swap_axes, with_tensors

OLD_RESNET50 = {"a268eb855778b3df3c7506639542a6af", "a7b3fe01876f51b976af0dea6bc144eb"}  # without and with classifier
UNREADABLE = (UnreadableError, OSError, RuntimeError, KeyError, ValueError, EOFError, struct.error,
              zipfile.BadZipFile, zlib.error)


class Imported(NamedTuple):
    """Tensors by their path in our variables, in our axes, and what became of the classifier.

    `classifier` is "read", "not in the file" or "ImageNet's, left out".
    """

    tensors: dict[Path, Float32[np.ndarray, "..."]]
    classifier: str


def read_tensors(path: str | os.PathLike, model_name: str, *, imagenet: bool = False) -> Imported:
    """Reads the weights of a network from a file of Keras'.

    A file with the MD5 of a published one is taken by order and shape, as Keras does; in any other, names have to fit.

    Raises:
      InputError: the file is not readable, or does not hold exactly the network's tensors; the message names the
        first difference, and the network that the file does fit, if there is one.
    """
    expected = with_tensors(model_name, imagenet=imagenet)
    # Values, and an optimizer's two moments, in double precision; then HDF5's own needs.
    largest = 24 * sum(prod(tensor.shape) for layer in expected for tensor in layer.tensors) + (64 << 20)
    stored: list[StoredLayer] = []
    md5 = ""
    try:
        require_file(path, LARGEST_FILE)
        with open(path, "rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        if md5 in OLD_RESNET50:
            raise InputError(f"its MD5 is {md5}")
        published = md5 in {file.md5 for file in model_spec(model_name).weights.values()}
        with open_hdf5(path, largest) as file:
            stored = read_layers(file, expected)
            pairs, classifier = match(stored, model_name, imagenet=imagenet, by_name=not published)
            return Imported({tensor.path: _read(file, tensor, found) for tensor, found in pairs}, classifier)
    except InputError as error:
        raise InputError(f"{path}: {error}; {_advice(stored, md5, model_name)}") from None
    except UNREADABLE as error:
        raise InputError(f"{path}: not readable as HDF5 or .keras file ({one_line(error)}); download or copy it "
                         "again") from None


def match(stored: Sequence[StoredLayer], model_name: str, *, imagenet: bool = False, by_name: bool = True
          ) -> tuple[list[tuple[Tensor, StoredTensor]], str]:
    """Pairs each tensor of a network with the one in a file that it is read from; says what becomes of the classifier.

    A file may do without our classifier, or hold ImageNet's, which is left out; else both sides must be used up.

    Raises:
      InputError: the first layer or tensor that does not fit.
    """
    expected, classifier = with_tensors(model_name, imagenet=imagenet), "read"
    backbone = [layer for layer in expected if layer.in_backbone]
    if len(stored) == len(backbone):
        if imagenet:
            raise InputError(f"holds no classifier for ImageNet, {expected[-1].name!r} is missing")
        expected, classifier = backbone, "not in the file"
    elif not imagenet and _ends_in_imagenet(stored, by_name) and model_spec(model_name).weights:
        expected, classifier = with_tensors(model_name, imagenet=True), "ImageNet's, left out"
    if by_name:
        _check_names(stored, expected)
    pairs = []
    for found, layer in zip_longest(stored, expected):
        if found is None:
            raise InputError(f"ends where {layer.name!r} is expected")
        if layer is None:
            raise InputError(f"{found} is left over, {expected[-1].name!r} is expected to be the last")
        if len(found.tensors) != len(layer.tensors):
            raise InputError(f"{found} holds {len(found.tensors)} tensors, expected {layer.name!r} with "
                             f"{', '.join(tensor.role for tensor in layer.tensors)}")
        for tensor, data in zip(layer.tensors, found.tensors, strict=True):
            _check_tensor(data, f"{layer.name}/{tensor.role}", tensor.shape)
        if layer.in_backbone or classifier == "read":
            pairs += zip(layer.tensors, found.tensors, strict=True)
    return pairs, classifier


def _ends_in_imagenet(stored: Sequence[StoredLayer], by_name: bool) -> bool:
    """Whether the last layer is that of ImageNet's classifier: by its name, or where that is not told by its size."""
    last = stored[-1]
    if by_name and last.name:
        return last.name in IMAGENET
    return last.tensors[-1].shape == (1000,)


def _check_names(stored: Sequence[StoredLayer], expected: Sequence[KerasLayer]) -> None:
    """Compares the names of layers, and what the names of tensors tell, as far as both sides have any."""
    theirs, ours = (canonical([layer.name or "" for layer in layers]) for layers in (stored, expected))
    named = {(layer.name or "").replace("/", "_") for layer in stored}
    dense = 0
    for found, name, layer, own in zip(stored, theirs, expected, ours, strict=False):
        automatic = f"dense_{dense}" if layer.kind == "Dense" else own
        dense += layer.kind == "Dense"
        if found.name and name != automatic and not same_layer(name, own, ours):
            counted = f", as {name} counted from 0," if AUTOMATIC.fullmatch(found.name) else ""
            raise InputError(f"{found}{counted} stands where {layer.name!r} is expected")
        for data, tensor in zip(found.tensors, layer.tensors, strict=False):
            elsewhere = found.name and data.scope and names_another(data.scope, found.name.replace("/", "_"), named)
            if elsewhere or (data.role and not same_role(data.role, tensor.role)):
                raise InputError(f"{data.name} stands in {found} where {layer.name}/{tensor.role} is expected")


def _check_tensor(found: StoredTensor, name: str, shape: tuple[int, ...]) -> None:
    """Everything that must hold before the values may be read: they then take no more memory than expected."""
    if found.shape != shape:
        raise InputError(f"{found.name} has the shape {list(found.shape)}, {name} is expected with {list(shape)}")
    if not found.node.dtype[1:2] == "f":
        raise InputError(f"{found.name} does not hold floating point numbers")
    if not found.node.plain or any(np.greater(found.node.chunks or 0, shape or 0)):
        raise InputError(f"{found.name} is not stored as plain values inside this file")


def _read(file: Hdf5File, tensor: Tensor, found: StoredTensor) -> Float32[np.ndarray, "..."]:
    with np.errstate(over="ignore"):
        values = file.read(found.path).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{found.name} holds values that are not finite")
    return np.ascontiguousarray(swap_axes(tensor.role, values))


def _advice(stored: Sequence[StoredLayer], md5: str, model_name: str) -> str:
    """What to do with a file that does not fit `model_name`: another network, if it fits one, or another file."""
    if md5 in OLD_RESNET50 or any(re.match(r"(res|bn)\d\w_branch", layer.name or "") for layer in stored):
        file = MODELS["resnet50"].weights["imagenet"]
        return ("these are ResNet50's old weights (layers res2a_branch2a and so on, another order and epsilon); get "
                f"the current file of that name, with the MD5 {file.md5}, from {file.url}")
    sizes = Counter(prod(tensor.shape) for layer in stored for tensor in layer.tensors)
    for other in (model_name, *MODELS) if stored else ():
        if not _backbone_sizes(other) <= sizes:
            continue
        if other != model_name:
            return f"its tensors are those of {other}, load them as that"
        ours = ", ".join(layer.name for layer in with_tensors(other) if not layer.in_backbone)
        return f"restore the file, or save {other} with Keras again, by itself or with the classifier {ours}"
    return f"restore the file, or save {model_name} with Keras again"


@cache
def _backbone_sizes(model_name: str) -> Counter[int]:
    """How many tensors of which size there are; this takes less time than their order."""
    return Counter(leaf.size for part in variable_shapes(model_name).values()
                   for leaf in jax.tree.leaves(part.get("backbone")))
