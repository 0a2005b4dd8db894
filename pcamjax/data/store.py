"""The store: one folder of memory-mapped patches, whatever source they came from.

    images.npy     uint8 [n,96,96,3]
    labels.npy     int8 [n], 1 metastasis in the centre 32x32, 0 healthy, -1 unlabelled
    ids.npy        unicode [n], unique
    slides.npy     unicode [n], "" where the slide is not known
    parts.npy      unicode [n], the split as the source itself names it
    digests.npy    uint8 [n,16], BLAKE2b of each image's bytes
    manifest.json  counts, and the SHA-256 of each of these files

The bytes depend on the source's patches alone: no times, no paths.
"""

import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int8, Integer, UInt8
from tqdm import tqdm

from pcamjax.errors import InputError
from pcamjax.files import read_json, require_file, require_space, sha256_file, sync
from pcamjax.locks import locked
from pcamjax.npy import read_header, read_values

IMAGE_SHAPE = (96, 96, 3)
BATCH = 1024
FORMAT, VERSION = "pcamjax-store", 1
LONGEST_NAME = 255
COUNTS = ("count", "positive", "negative", "unlabelled", "slides")  # of each part, in the manifest
LARGEST_ARRAY = 1 << 40  # bytes of a file; images are mapped, and whatever else is read has 1 kB a patch at most
ARRAYS = {"images": ("u1", IMAGE_SHAPE), "labels": ("i1", ()), "ids": ("U", ()), "slides": ("U", ()),
          "parts": ("U", ()), "digests": ("u1", (16,))}


class PatchBatch(NamedTuple):
    """Consecutive patches of a source: images 0..255, labels in {0, 1, -1}, three strings a patch."""

    images: UInt8[np.ndarray, "b 96 96 3"]
    labels: Int8[np.ndarray, " b"]
    ids: list[str]
    slides: list[str]
    parts: list[str]


@runtime_checkable
class Source(Protocol):
    """A data set that can be converted: `len(source)` patches in its own order, at most `BATCH` at a time."""

    name: str

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[PatchBatch]: ...


@dataclass(frozen=True)
class Patches:
    """An open store; `images` stays on disk and is read where it is indexed."""

    images: UInt8[np.ndarray, "n 96 96 3"]
    labels: Int8[np.ndarray, " n"]
    ids: np.ndarray
    slides: np.ndarray
    parts: np.ndarray
    digests: UInt8[np.ndarray, "n 16"]
    manifest: dict[str, Any]
    path: Path

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Patches":
        """Opens a store and checks formats, shapes and file sizes, not hashes (see `verify`).

        Raises:
          InputError: `path` is not a whole store of this version.
        """
        path = Path(path)
        file = path / "manifest.json"
        if not file.is_file():
            raise InputError(f"{path}: no store (no {file.name}); make one: python -m experiments.prepare")
        manifest = read_json(file)
        if not isinstance(manifest, dict) or {**manifest, "format": FORMAT, "version": VERSION} != manifest:
            raise InputError(f"{file}: no manifest of a {FORMAT}, version {VERSION}; prepare the data again")
        if not _is_manifest(manifest):
            raise InputError(f"{file}: counts and hashes are not there as they should be; prepare the data again")
        arrays = {name: _load(path / f"{name}.npy", kind, (manifest["count"], *shape))
                  for name, (kind, shape) in ARRAYS.items()}
        if not np.isin(arrays["labels"], (-1, 0, 1)).all():
            raise InputError(f"{path / 'labels.npy'}: holds other values than -1, 0 and 1; prepare the data again")
        return cls(**arrays, manifest=manifest, path=path)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the manifest, which holds those of all files: it names the content of the store."""
        return sha256_file(self.path / "manifest.json")

    def require_labels(self, indices: Integer[np.ndarray, " k"]) -> None:
        """Raises InputError if one of these patches has no label; the first such is named."""
        unlabelled = indices[self.labels[indices] < 0]
        if len(unlabelled):
            raise InputError(f"{self.path}: {len(unlabelled)} of {len(indices)} patches have no label "
                             f"({self.ids[unlabelled[0]]} is the first), which training and scoring need; choose "
                             "another part or split, or only predict: python -m experiments.predict")

    def verify(self) -> None:
        """Reads every file and compares its hash with the manifest.

        Raises:
          InputError: a file differs; it is named.
        """
        for name in ARRAYS:
            file = self.path / f"{name}.npy"
            if sha256_file(file) != self.manifest["sha256"].get(file.name):
                raise InputError(f"{file}: changed since it was written, its SHA-256 is not the manifest's; "
                                 "prepare the data again")


def write_store(source: Source, path: str | os.PathLike) -> Patches:
    """Converts a source into a new store at `path`, which is there only once it is whole, and opens it.

    Raises:
      InputError: `path` exists, another process writes it, a batch breaks the contract of `PatchBatch`, or the disk is
        full; nothing is left then.
    """
    path, count = Path(path), len(source)
    refuse_existing(path)
    if not count:
        raise InputError(f"{source.name}: holds no patches, nothing to convert")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with locked(path.with_name(f".{path.name}.lock"), "conversion"):
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a process that was killed
            shutil.rmtree(left)
        try:
            temporary.mkdir()
            require_space(path.parent, count * (int(np.prod(IMAGE_SHAPE)) + 1024))
            _write_arrays(source, count, temporary)
            for file in (*temporary.iterdir(), temporary):
                sync(file)
            os.rename(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error}); free space or choose "
                             "another output, nothing is left of this conversion") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Patches.open(path)


def refuse_existing(path: Path) -> None:
    """Raises InputError if there is anything at `path`."""
    if os.path.lexists(path):
        raise InputError(f"{path}: exists already; choose another output or remove it first")


def _write_arrays(source: Source, count: int, folder: Path) -> None:
    labels, digests = np.empty(count, np.int8), np.empty((count, 16), np.uint8)
    names: dict[str, list[str]] = {"ids": [], "slides": [], "parts": []}
    seen: set[str] = set()
    progress = tqdm(total=count, unit=" images", desc=source.name)
    # Plain writes, not a memory map: on a full disk a write fails, where a mapped page kills the process.
    with open(folder / "images.npy", "wb") as file, progress:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *IMAGE_SHAPE)}
        np.lib.format.write_array_header_1_0(file, header)
        done = 0
        for batch in source.batches():
            size = _check(batch, source.name, done, count, seen)
            file.write(np.ascontiguousarray(batch.images))
            labels[done:done + size] = batch.labels
            digests[done:done + size] = [_digest(image) for image in batch.images]
            for key in names:
                names[key] += getattr(batch, key)
            done += size
            progress.update(size)
        if done != count:
            raise InputError(f"{source.name}: gave {done} patches of the {count} announced; it was cut short")
    columns = {"labels": labels, "digests": digests, **{key: np.array(names[key]) for key in names}}
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column, allow_pickle=False)
    parts = _count_parts(labels, columns["slides"], columns["parts"])
    manifest = {"format": FORMAT, "version": VERSION, "source": source.name, "image_shape": list(IMAGE_SHAPE),
                "count": count, "parts": parts,
                "sha256": {f"{name}.npy": sha256_file(folder / f"{name}.npy") for name in ARRAYS}}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _digest(image: UInt8[np.ndarray, "96 96 3"]) -> UInt8[np.ndarray, " 16"]:
    return np.frombuffer(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), np.uint8)


def _load(file: Path, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """One array of a store, memory-mapped if it is the images.

    Raises:
      InputError: the file is not whole, or its type or shape is not the one expected.
    """
    try:
        require_file(file, LARGEST_ARRAY)
        with open(file, "rb") as opened:
            header = read_header(opened, os.fstat(opened.fileno()).st_size)
            found = header.dtype.kind if kind == "U" else header.dtype.str[1:]
            if (found, header.shape, header.fortran_order) != (kind, shape, False):
                raise InputError(f"{file}: {header.dtype} {list(header.shape)}, but the manifest says {kind} "
                                 f"{list(shape)}; prepare the data again")
            if kind == "U" and header.dtype.itemsize > 4 * LONGEST_NAME:
                raise InputError(f"{file}: {header.dtype}, but names have {LONGEST_NAME} characters at most; prepare "
                                 "the data again")
            if file.name == "images.npy":
                return np.memmap(opened, header.dtype, "r", header.offset, shape)
            return read_values(opened, header)
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: missing or truncated ({error}); prepare the data again") from None


def _check(batch: PatchBatch, name: str, done: int, count: int, seen: set[str]) -> int:
    """Returns the size of a batch that keeps the contract, and adds its ids to `seen`."""
    images, labels, *names = batch
    size, where = len(images), f"{name}, patches from {done} on"
    if images.dtype != np.uint8 or images.shape[1:] != IMAGE_SHAPE:
        raise InputError(f"{where}: images are {images.dtype} {images.shape}, expected uint8 [n, 96, 96, 3]")
    if any(len(column) != size for column in (labels, *names)):
        lengths = [len(column) for column in (labels, *names)]
        raise InputError(f"{where}: {size} images, but {lengths} labels, ids, slides and parts")
    if done + size > count:
        raise InputError(f"{where}: more patches than the {count} announced")
    wrong = ~np.isin(labels, (0, 1, -1))
    if wrong.any():
        raise InputError(f"{where}: label {labels[wrong][0]} of patch {batch.ids[wrong.argmax()]!r}, "
                         "expected 0, 1 or -1 (unlabelled)")
    for text in (text for column in names for text in column):
        if len(text) > LONGEST_NAME or not text.isprintable():
            raise InputError(f"{where}: {text[:80]!r} is no name: 1 to {LONGEST_NAME} printable characters")
    for text in batch.ids:
        if not text or text in seen:
            raise InputError(f"{where}: the id {text!r} is empty or occurs twice; ids must be unique")
        seen.add(text)
    return size


def _is_manifest(manifest: dict[str, Any]) -> bool:
    """Whether what is read of a manifest later is there: counts by part, and a hash for each file."""
    count, parts, hashes = (manifest.get(key) for key in ("count", "parts", "sha256"))
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        return False
    numbers = [count, *(part.get(key) for part in parts.values() for key in COUNTS)]
    return (all(type(number) is int and number >= 0 for number in numbers) and isinstance(hashes, dict)
            and isinstance(manifest.get("source"), str))


def _count_parts(labels: np.ndarray, slides: np.ndarray, parts: np.ndarray) -> dict[str, dict[str, int]]:
    counts = {}
    for part in dict.fromkeys(parts.tolist()):
        of_part = parts == part
        known = set(slides[of_part].tolist()) - {""}
        counts[part] = {"count": int(of_part.sum()), "positive": int((labels[of_part] == 1).sum()),
                        "negative": int((labels[of_part] == 0).sum()),
                        "unlabelled": int((labels[of_part] == -1).sum()), "slides": len(known)}
    return counts
