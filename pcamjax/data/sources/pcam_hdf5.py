"""Official PCam: `camelyonpatch_level_2_split_<part>_{x,y}.h5` or `.h5.gz`, and `..._meta.csv` with slides.

Source: https://github.com/basveeling/pcam and https://doi.org/10.5281/zenodo.2546921 (CC0).
"""

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int8

from pcamjax.data.store import BATCH, IMAGE_SHAPE, PatchBatch, Source, require_space
from pcamjax.data.tables import read_table
from pcamjax.errors import InputError, one_line
from pcamjax.files import require_file
from pcamjax.hdf5 import Hdf5File, Node
from pcamjax.isolation import UnreadableError

PARTS = ("train", "valid", "test")
STEM = "camelyonpatch_level_2_split_"
PUBLISHED_COUNT = {"train": 262_144, "valid": 32_768, "test": 32_768}
# MD5 of the files under these names at Zenodo, as in torchvision/datasets/pcam.py. The README of PCam prints
# those of valid and test the wrong way round (basveeling/pcam#1 and #4), for the meta files too.
PUBLISHED_MD5 = {
    f"{STEM}train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
    f"{STEM}train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    f"{STEM}train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    f"{STEM}valid_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    f"{STEM}valid_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    f"{STEM}valid_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
    f"{STEM}test_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    f"{STEM}test_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    f"{STEM}test_meta.csv": "3455fd69135b66734e1008f3af684566",
}
LARGEST_FILE = 1 << 40  # bytes; only what is asked for is read
LARGEST_LABELS = 64 << 20  # bytes of an unpacked y file; PCam's largest has 0.3 MB
AGREEMENT = 0.9  # of labels with center_tumor_patch in the meta file; that of another part agrees in half


@dataclass(frozen=True)
class _Part:
    name: str
    x: Path
    labels: Int8[np.ndarray, " n"]
    slides: list[str]


@dataclass(frozen=True)
class _PcamHdf5:
    parts: list[_Part]
    output: Path | None
    name: str = "pcam_hdf5"

    def __len__(self) -> int:
        return sum(len(part.labels) for part in self.parts)

    def batches(self) -> Iterator[PatchBatch]:
        for part in self.parts:
            count = len(part.labels)
            with _images(part.x, count, self.output) as images:
                for start in range(0, count, BATCH):
                    rows = range(start, min(start + BATCH, count))
                    with _readable(part.x):
                        pixels = images.read("x", start, rows.stop)
                    ids = [f"{part.name}_{i:06d}" for i in rows]
                    yield PatchBatch(pixels, part.labels[start:rows.stop], ids, part.slides[start:rows.stop],
                                     [part.name] * len(rows))


def open_pcam_hdf5(folder: str | os.PathLike, *, verify_published: bool = False,
                   output: str | os.PathLike | None = None) -> Source:
    """Opens the parts of PCam that are in `folder` (train, valid, test: at least one), in this order.

    Ids are "<part>_<row>". Slides are the `wsi` column of the meta file, "" where there is none. A
    packed x file is unpacked while it is read: beside `output`, the store that it is meant for, where `write_store`
    clears away what a killed process left; by default in the system's temporary folder.

    Args:
      verify_published: demand the published files: sizes, balance, and the MD5 of .gz and .csv files.

    Raises:
      InputError: one file of a pair is missing, truncated or of another layout; lengths differ; a label is
        not 0 or 1; with `verify_published`, a size or hash is not the published one.
    """
    folder, output = Path(folder), None if output is None else Path(output)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected {STEM}<part>_x.h5 and _y.h5 (or .h5.gz) in it")
    parts = []
    for name in PARTS:
        x, y = (_find(folder, f"{STEM}{name}_{axis}.h5") for axis in "xy")
        if x is None and y is None:
            continue
        for file, axis, other in ((x, "x", y), (y, "y", x)):
            if file is None:
                raise InputError(f"{folder / f'{STEM}{name}_{axis}.h5'}: missing, plain or .gz, beside "
                                 f"{other.name}; put it there or take both away")
        meta = folder / f"{STEM}{name}_meta.csv"
        if verify_published:
            _verify_md5([x, y, meta])
        labels = _read_labels(y)
        # The published parts are balanced but for a few patches: the test part has 16,377 of 32,768.
        if verify_published and (len(labels) != PUBLISHED_COUNT[name] or abs(labels.mean() - 0.5) > 0.01):
            raise InputError(f"{y}: {len(labels)} labels, {labels.sum()} of them 1, but the published part "
                             f"{name!r} has {PUBLISHED_COUNT[name]}, about half of them 1; download it again")
        if x.suffix != ".gz":
            with _images(x, len(labels), output):
                pass
        parts.append(_Part(name, x, labels, _read_slides(meta, labels)))
    if not parts:
        raise InputError(f"{folder}: no file {STEM}<part>_x.h5 or _y.h5 (.h5.gz) with part "
                         f"{', '.join(PARTS)}")
    return _PcamHdf5(parts, output)


def _find(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns the errors of unreadable bytes into an InputError that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}; download it again") from None
    except (UnreadableError, OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: truncated or not the HDF5 of PCam ({one_line(error)}); download it again") from error


@contextlib.contextmanager
def _dataset(file: Path, source: Path, key: str) -> Iterator[tuple[Hdf5File, Node]]:
    with contextlib.ExitStack() as stack:
        with _readable(source):
            require_file(file, LARGEST_FILE)
            opened = stack.enter_context(Hdf5File(file))
            if key not in opened.nodes:
                raise InputError(f"no {key!r} inside")
            if not opened.nodes[key].is_dataset:
                raise InputError(f"{key!r} is a group, expected the data set of PCam")
        yield opened, opened.nodes[key]


@contextlib.contextmanager
def _images(path: Path, count: int, output: Path | None) -> Iterator[Hdf5File]:
    """A plain or packed file whose data set `x` holds `count` patches of 96x96 RGB."""
    with contextlib.ExitStack() as stack:
        file = path
        if path.suffix == ".gz":
            # HDF5 seeks: read through gzip, each step back would unpack the file from its start.
            place = {} if output is None else {"dir": output.parent, "prefix": f".{output.name}.", "suffix": ".tmp"}
            folder = stack.enter_context(tempfile.TemporaryDirectory(**place))
            file = Path(folder) / path.stem
            _unpack(path, file, limit=count * int(np.prod(IMAGE_SHAPE)) * 11 // 10 + (64 << 20))
        opened, x = stack.enter_context(_dataset(file, path, "x"))
        if x.dtype != "|u1" or x.shape[1:] != IMAGE_SHAPE:
            raise InputError(f"{path}: images are {_kind(x)} {list(x.shape)}, expected uint8 "
                             "[n, 96, 96, 3]; greyscale, alpha or other sizes must be converted to RGB 96x96 "
                             "first")
        if x.shape[0] != count:
            raise InputError(f"{path}: {x.shape[0]} images, but {count} labels in its y file; they must be "
                             "a pair")
        yield opened


def _kind(node: Node) -> str:
    return np.dtype(node.dtype).name if node.dtype else "no numbers"


def _unpack(packed: Path, file: Path, limit: int) -> None:
    """Unpacks a .gz file; more than `limit` bytes are refused, whatever the file claims of itself."""
    require_space(file.parent, limit)
    with _readable(packed):
        require_file(packed, LARGEST_FILE)
    try:
        with open(file, "wb") as target, gzip.open(packed) as source:
            while True:
                with _readable(packed):
                    chunk = source.read(4 << 20)
                if not chunk:
                    return
                if target.tell() + len(chunk) > limit:
                    raise InputError(f"{packed}: unpacks to more than {limit} bytes, the most that fits its "
                                     "labels; download x and y again")
                target.write(chunk)
    except OSError as error:
        raise InputError(f"{file.parent}: no room to unpack {packed.name} ({error.strerror or error}); free "
                         "space there") from error


def _read_labels(path: Path) -> Int8[np.ndarray, " n"]:
    with tempfile.TemporaryDirectory() as folder:
        file = path
        if path.suffix == ".gz":
            file = Path(folder) / path.stem
            _unpack(path, file, LARGEST_LABELS)
        with _dataset(file, path, "y") as (opened, y):
            if y.dtype[1:2] not in ("u", "i") or y.shape[1:] not in ((1, 1, 1), ()) or not y.shape:
                raise InputError(f"{path}: labels are {_kind(y)} {list(y.shape)}, expected uint8 [n, 1, 1, 1]")
            if y.shape[0] * np.dtype(y.dtype).itemsize > LARGEST_LABELS:
                raise InputError(f"{path}: claims {y.shape[0]} labels, expected at most {LARGEST_LABELS}")
            with _readable(path):
                labels = opened.read("y").reshape(-1)
    if not len(labels):
        raise InputError(f"{path}: holds no labels; download it again")
    wrong = ~np.isin(labels, (0, 1))
    if wrong.any():
        raise InputError(f"{path}: label {labels[wrong][0]} in row {wrong.argmax()}, expected 0 or 1")
    return labels.astype(np.int8)


def _read_slides(path: Path, labels: Int8[np.ndarray, " n"]) -> list[str]:
    """The slide of each row, from the columns "", coord_y, coord_x, tumor_patch, center_tumor_patch, wsi."""
    if not path.is_file():
        return [""] * len(labels)
    rows = [(row["wsi"], row.get("center_tumor_patch")) for _, row in read_table(path, ("wsi",))]
    if len(rows) != len(labels):
        raise InputError(f"{path}: {len(rows)} rows, but {len(labels)} labels in the y file; they must be of "
                         "one part")
    if empty := [i for i, row in enumerate(rows) if not row[0]]:
        raise InputError(f"{path}: no slide in row {empty[0]} (column 'wsi'); download it again")
    if rows[0][1] is not None:
        centre = np.array([row[1] in ("True", "1") for row in rows])
        if (agree := float((centre == (labels == 1)).mean())) < AGREEMENT:
            raise InputError(f"{path}: its center_tumor_patch agrees with {agree:.0%} of the labels, so it "
                             "is not the meta file of this part; check the names of valid and test")
    return [row[0] for row in rows]


def _verify_md5(files: list[Path | None]) -> None:
    for file in files:
        if file is None or file.name not in PUBLISHED_MD5 or not file.is_file():
            continue
        with open(file, "rb") as opened:
            found = hashlib.file_digest(opened, "md5").hexdigest()
        if found != PUBLISHED_MD5[file.name]:
            names = [name for name, md5 in PUBLISHED_MD5.items() if md5 == found]
            what = f"that is the published {names[0]}, rename it" if names else "download it again"
            raise InputError(f"{file}: MD5 {found}, but the published file has {PUBLISHED_MD5[file.name]}; "
                             f"{what}")
