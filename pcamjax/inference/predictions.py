"""What a network says of every patch of a split: metrics, figures and comparisons read only this file."""

import csv
import dataclasses
import json
import os
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int8, Shaped
from scipy.special import expit, logit

from pcamjax.errors import InputError, first_line
from pcamjax.files import atomic_file, open_zip, parse_json
from pcamjax.npy import read_header, read_values

THRESHOLD = 0.5
"""A patch is called metastasis when its score is greater, as argmax does; a tie is healthy."""

_FORMAT = "pcamjax-predictions 1"
_LARGEST = 4 * 2**30  # bytes of one file's arrays, enough for tens of millions of patches


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The scores of n patches, with what is needed to judge them; checked when it is made.

    ids: unique names of the patches; slides: "" where the slide is not known.
    labels: 1 metastasis, 0 healthy, -1 not known.
    scores: in [0, 1], sigmoid(z1 - z0) of the logits, where there are any: columns (healthy, metastasis).
    meta: JSON values: model, run, split, split_description, leaks_slides, checkpoint, store_sha256.

    Raises:
      InputError: a length, dtype or value is not as said here.
    """

    ids: Shaped[np.ndarray, " n"]
    slides: Shaped[np.ndarray, " n"]
    labels: Int8[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]
    logits: Float32[np.ndarray, "n 2"] | None
    meta: dict[str, Any]

    def __post_init__(self):
        n = self.ids.size
        if n == 0:
            raise InputError("there are no patches in these predictions, expected at least one")
        _expect("ids", self.ids, (n,), "U")
        _expect("slides", self.slides, (n,), "U")
        _expect("labels", self.labels, (n,), np.int8)
        _expect("scores", self.scores, (n,), np.float32)
        _refuse("labels", self.labels, ~np.isin(self.labels, (-1, 0, 1)), "-1, 0 or 1")
        _refuse("scores", self.scores, ~((self.scores >= 0) & (self.scores <= 1)), "a number in [0, 1]")
        names, counts = np.unique(self.ids, return_counts=True)
        if len(names) < n:
            name = names[counts > 1][0]
            raise InputError(f"the id {str(name)!r} stands {counts.max()} times, expected every patch once")
        if self.logits is not None:
            _expect("logits", self.logits, (n, 2), np.float32)
            _refuse("logits", self.logits, ~np.isfinite(self.logits), "finite numbers")
            wrong = np.abs(scores(self.logits) - self.scores) > 1e-4
            _refuse("scores", self.scores, wrong, "sigmoid(z1 - z0) of the logits")
        if not isinstance(self.meta, dict):
            raise InputError(f"meta is {type(self.meta).__name__}, expected a dictionary")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def margins(self) -> Float64[np.ndarray, " n"]:
        """z1 - z0, the log-odds of metastasis: of the logits, or else of the scores.

        A score then counts as 2**-25 away from 0 and 1 at least, which is half of float32's last step below 1.
        """
        if self.logits is not None:
            return self.logits[:, 1].astype(np.float64) - self.logits[:, 0]
        return logit(np.clip(self.scores.astype(np.float64), 2**-25, 1 - 2**-25))

    def save(self, path: str | os.PathLike) -> None:
        """Writes one .npz file, atomically and without pickle: the same predictions, the same bytes."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays["meta"] = np.array(json.dumps(self.meta, sort_keys=True, allow_nan=False))
        arrays["format"] = np.array(_FORMAT)
        if self.logits is None:
            del arrays["logits"]
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Predictions":
        """Reads what `save` wrote.

        Raises:
          InputError: the file is missing, damaged, not of this format, or holds values that make no sense.
        """
        arrays = read_npz(path)
        if str(arrays.pop("format", "none")) != _FORMAT:
            raise InputError(f"{path}: not a file of predictions (expected the format {_FORMAT!r}); "
                             "make it: python -m experiments.evaluate")
        fields = {field.name for field in dataclasses.fields(cls)}
        if fields - {"logits"} - arrays.keys() or arrays.keys() - fields:
            raise InputError(f"{path}: holds {', '.join(sorted(arrays))}, expected "
                             f"{', '.join(sorted(fields))} (logits or not); make it again")
        try:
            arrays["meta"] = parse_json(str(arrays["meta"]))
            return cls(**{"logits": None} | arrays)
        except ValueError as error:
            raise InputError(f"{path}: {error}; make it again: python -m experiments.evaluate") from None

    def write_csv(self, path: str | os.PathLike, header: tuple[str, str] = ("id", "score")) -> None:
        """Writes one line a patch: its id and its score, with the digits that give the same float32 back.

        With the header ("id", "label") this is the submission form of Kaggle's Histopathologic Cancer
        Detection, whose `label` is the probability of metastasis.
        """
        with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(zip(self.ids.tolist(), map(str, self.scores), strict=True))


def scores(logits: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, " n"]:
    """sigmoid(z1 - z0), which is the softmax probability of metastasis and agrees with the larger of two sigmoids."""
    return expit(logits[:, 1].astype(np.float64) - logits[:, 0]).astype(np.float32)


def require_same_patches(first: Predictions, other: Predictions) -> None:
    """Raises InputError unless both are of the same patches, in the same order, with the same labels and slides."""
    if len(first) != len(other):
        raise InputError(f"predictions of {len(first)} and of {len(other)} patches, expected the same patches; "
                         "score both models on the same part of the same split")
    for name in ("ids", "labels", "slides"):
        ours, theirs = getattr(first, name), getattr(other, name)
        if (differ := ours != theirs).any():
            row = int(np.argmax(differ))
            raise InputError(f"{name}[{row}] is {str(ours[row])!r} in one and {str(theirs[row])!r} in the other of two "
                             "predictions, expected the same patches in the same order; score both models on the "
                             "same part of the same split")


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a .npz file from outside: no pickle, and every size is checked before memory is taken for it.

    Raises:
      InputError: the file is missing, truncated, not a .npz file, or larger than 4 GiB.
    """
    try:
        with open_zip(path, _LARGEST) as archive:
            return {_name(member): _read_array(archive, member) for member in archive.infolist()}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError as error:
        raise InputError(f"{path}: {error}; make it again") from None
    # Besides its own errors, zipfile passes on those of its parts: NotImplementedError for an unknown
    # compression, zlib.error for damaged data, struct.error and EOFError for missing data.
    except Exception as error:
        raise InputError(f"{path}: not readable as .npz ({first_line(error)}); it is damaged or of another kind, "
                         "make it again") from None


def _name(member: zipfile.ZipInfo) -> str:
    name = member.filename.removesuffix(".npy")
    if not name.isidentifier():
        raise InputError("holds an array whose name is no word")
    return name


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return read_values(file, read_header(file, member.file_size))


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: Any) -> None:
    """`dtype` is a dtype or, for text of any width, its kind "U"."""
    if array.shape != shape or dtype not in (array.dtype, array.dtype.kind):
        wanted = "text" if dtype == "U" else np.dtype(dtype)
        raise InputError(f"{name} is {array.dtype} {list(array.shape)}, expected {wanted} {list(shape)}")


def _refuse(name: str, array: np.ndarray, wrong: np.ndarray, expected: str) -> None:
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(f"{name}[{place[0]}] is {array[place]}, expected {expected}")
