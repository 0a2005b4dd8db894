"""HDF5 files from outside: opened in a process of their own, and only for what lies plainly inside them."""

import math
import os
from typing import Any, NamedTuple

import h5py
import numpy as np

from pcamjax.errors import InputError
from pcamjax.isolation import Isolated

MOST_OBJECTS = 20_000  # in a file, or names in it; DenseNet201 with its optimizer's state has 6000
LARGEST_CHUNK = 256 << 20  # bytes
# Deflate packs zeros 1030 to 1; what claims to be larger has never been written.
DENSEST = 1100
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


class Node(NamedTuple):
    """A group or data set as the file describes it.

    `dtype` is NumPy's for floating point numbers and integers, and "" for everything else. `plain` says that the values
    lie in this file, in chunks and filters of the usual kind. `names` holds those attributes that were asked for and
    are there: lists of strings, or None for something else.
    """

    is_dataset: bool
    shape: tuple[int, ...] = ()
    dtype: str = ""
    plain: bool = False
    chunks: tuple[int, ...] = ()
    names: dict[str, list[str] | None] = {}


class Hdf5File:
    """An open file; to be used in a `with` statement.

    `nodes` has every object by its path without the first slash, and the root as "". Soft and external links are not
    followed, and attributes whose names begin with one of `attributes` are read.

    Raises, as its methods:
      InputError: more than 20,000 objects or names.
      UnreadableError: the file is missing, or HDF5 cannot read it.
    """

    def __init__(self, path: str | os.PathLike, attributes: tuple[str, ...] = ()):
        self._reader = Isolated("pcamjax.hdf5:Reader", os.fspath(path))
        try:
            found = self._reader.call("nodes", list(attributes))
        except BaseException:
            self._reader.close()
            raise
        self.nodes = {name: Node(is_dataset, tuple(shape), dtype, plain, tuple(chunks), names)
                      for name, (is_dataset, shape, dtype, plain, chunks, names) in found.items()}

    def __enter__(self) -> "Hdf5File":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The values of a data set, or some of its rows: what this takes of memory, its shape and dtype have told.

        Raises:
          InputError: they are no numbers, or not stored as plain values inside this file.
        """
        node = self.nodes[name]
        if not (node.plain and node.dtype):
            raise InputError(f"{name} is not stored as plain values inside this file")
        shape, dtype = node.shape, np.dtype(node.dtype)
        if shape:
            shape = (len(range(shape[0])[start:stop]), *shape[1:])
        values = self._reader.read("values", name, start, stop, size=math.prod(shape) * dtype.itemsize)
        return np.frombuffer(values, dtype).reshape(shape)


class Reader:
    """What `Hdf5File` asks, in the process where HDF5 itself runs."""

    def __init__(self, path: str):
        # Without a lock, which this process would hold for a moment after the job has closed the file.
        self._file = h5py.File(path, "r", locking=False)

    def nodes(self, attributes: list[str]) -> dict[str, list[Any]]:
        """The fields of a `Node` for every object."""
        found: dict[str, h5py.HLObject] = {"": self._file}

        def add(name: str, node: h5py.HLObject) -> bool | None:
            found[name] = node
            return True if len(found) > MOST_OBJECTS else None

        self._file.visititems(add)
        if len(found) > MOST_OBJECTS:
            raise InputError(f"more than {MOST_OBJECTS} objects inside")
        nodes, count = {}, 0
        for name, node in found.items():
            names = _names(node, tuple(attributes))
            count += sum(len(values or ()) for values in names.values())
            if count > MOST_OBJECTS:
                raise InputError(f"more than {MOST_OBJECTS} names inside")
            nodes[name] = [*_described(node), names]
        return nodes

    def values(self, name: str, start: int, stop: int | None) -> memoryview:
        """Numbers as they lie in the file's own dtype."""
        data = self._file[name]
        values = data[start:stop] if data.shape else data[()]
        return memoryview(np.ascontiguousarray(values)).cast("B") if values.size else memoryview(b"")


def _described(node: h5py.HLObject) -> list[Any]:
    if not isinstance(node, h5py.Dataset):
        return [False, [], "", False, []]
    number = node.id.get_type().get_class() in (h5py.h5t.FLOAT, h5py.h5t.INTEGER)
    dtype = node.dtype.str if number and node.dtype.kind in "fiu" else ""
    return [True, list(node.shape or ()), dtype, bool(dtype) and _is_plain(node), list(node.chunks or ())]


def _is_plain(data: h5py.Dataset) -> bool:
    created = data.id.get_create_plist()
    filters = {created.get_filter(i)[0] for i in range(created.get_nfilters())}
    return (data.shape is not None and not data.is_virtual and not data.external and filters <= FILTERS
            and math.prod(data.chunks or (0,)) * data.dtype.itemsize <= LARGEST_CHUNK
            and data.nbytes <= DENSEST * data.id.get_storage_size())


def _names(node: h5py.HLObject, wanted: tuple[str, ...]) -> dict[str, list[str] | None]:
    names: dict[str, list[str] | None] = {}
    for key in node.attrs if wanted else ():
        if key.startswith(wanted):
            stored = node.attrs.get_id(key)
            count = -1 if stored.shape is None else math.prod(stored.shape)
            if count == 0:
                names[key] = []
            elif stored.get_type().get_class() == h5py.h5t.STRING and 0 < count <= MOST_OBJECTS:
                values = np.ravel(node.attrs[key]).tolist()
                names[key] = [text.decode() if isinstance(text, bytes) else text for text in values]
            else:
                names[key] = None
    return names
