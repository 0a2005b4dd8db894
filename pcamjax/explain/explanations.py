"""The heat maps of a run folder: which patches are shown, and the file that they lie in."""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int8, Shaped, UInt8

from pcamjax.errors import InputError
from pcamjax.files import atomic_file
from pcamjax.inference.predictions import THRESHOLD, read_npz


class Explanations(NamedTuple):
    """`explanations/<split>.npz`: k patches with their heat maps in [0, 1], and how these were made."""

    images: UInt8[np.ndarray, "k 96 96 3"]
    maps: Float32[np.ndarray, "k 96 96"]
    is_zero: Bool[np.ndarray, " k"]
    ids: Shaped[np.ndarray, " k"]
    labels: Int8[np.ndarray, " k"]
    scores: Float32[np.ndarray, " k"]
    layer: str
    target: str
    method: str

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file, atomically and without pickle."""
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self._asdict())


def choose_examples(labels: Int[np.ndarray, " n"], scores: Float32[np.ndarray, " n"], count: int,
                    seed: int) -> Int[np.ndarray, " k"]:
    """Row numbers of about `count` patches drawn at random, as many right and wrong calls of each class as there are.

    Unlabelled patches (-1) are two groups, called positive and negative.
    """
    rng = np.random.default_rng(seed)
    group = 2 * labels + (scores > THRESHOLD)
    shuffled = rng.permutation(len(labels))
    # The rank of each patch within its group: taking the lowest ranks takes evenly from all groups.
    ranks = np.empty(len(labels), int)
    for value in np.unique(group):
        members = shuffled[group[shuffled] == value]
        ranks[members] = np.arange(len(members))
    return np.sort(np.lexsort((shuffled, ranks))[:count])


def read_explanations(path: str | os.PathLike) -> Explanations:
    """Reads a file of heat maps.

    Raises:
      InputError: the file is missing or damaged, or its arrays are not as `Explanations` says.
    """
    arrays = read_npz(path)
    if set(arrays) != set(Explanations._fields):
        raise InputError(f"{path}: holds {', '.join(sorted(arrays))}; expected "
                         f"{', '.join(Explanations._fields)}; make it again: python -m experiments.explain")
    k = len(arrays["ids"]) if arrays["ids"].ndim else 0
    forms = {"images": ("u1", (k, 96, 96, 3)), "maps": ("f4", (k, 96, 96)), "is_zero": ("b1", (k,)),
             "ids": ("U", (k,)), "labels": ("i1", (k,)), "scores": ("f4", (k,)),
             "layer": ("U", ()), "target": ("U", ()), "method": ("U", ())}
    for name, (kind, shape) in forms.items():
        array = arrays[name]
        if kind not in (array.dtype.str[1:], array.dtype.kind) or array.shape != shape:
            raise InputError(f"{path}: {name} is {array.dtype} {list(array.shape)}, expected {kind} "
                             f"{list(shape)}; make it again: python -m experiments.explain")
    for name in ("maps", "scores"):
        if not ((arrays[name] >= 0) & (arrays[name] <= 1)).all():
            raise InputError(f"{path}: {name} has values outside [0, 1]; "
                             "make it again: python -m experiments.explain")
    return Explanations(**arrays | {name: str(arrays[name]) for name in ("layer", "target", "method")})
