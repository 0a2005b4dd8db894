"""The heat maps of a run folder: which patches are shown, and the file that they lie in."""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int8, Shaped, UInt8

from pcamjax.errors import InputError
from pcamjax.explain.localisation import centre_energy
from pcamjax.explain.names import TITLES
from pcamjax.files import atomic_file
from pcamjax.inference.predictions import THRESHOLD, read_npz


class Explanations(NamedTuple):
    """`explanations/<split>.npz`: k patches with the heat maps of m methods in 0..1, and how these were made.

    `maps * peaks` is what a method computed; a peak of 0 is a map that is zero everywhere.
    """

    images: UInt8[np.ndarray, "k 96 96 3"]
    maps: Float32[np.ndarray, "m k 96 96"]
    peaks: Float32[np.ndarray, "m k"]
    methods: Shaped[np.ndarray, " m"]
    ids: Shaped[np.ndarray, " k"]
    labels: Int8[np.ndarray, " k"]
    scores: Float32[np.ndarray, " k"]
    layer: str
    target: str
    checkpoint: str

    def save(self, path: str | os.PathLike) -> None:
        """Writes the file, atomically and without pickle."""
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **self._asdict())

    def records(self) -> list[dict]:
        """Each patch in numbers, for JSON: its call, and of each method's map the peak and the centre's share."""
        shares = np.array([np.where(maps.any((1, 2)), centre_energy(maps), np.nan) for maps in self.maps])
        return [{"id": str(name), "label": int(label), "score": float(score), "maps": {
                    str(method): {"peak": float(peaks[row]), "centre_energy": float(share[row])}
                    for method, peaks, share in zip(self.methods, self.peaks, shares, strict=True)}}
                for row, (name, label, score) in enumerate(zip(self.ids, self.labels, self.scores, strict=True))]


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
    m, k = (len(arrays[name]) if arrays[name].ndim else 0 for name in ("methods", "ids"))
    forms = {"images": ("u1", (k, 96, 96, 3)), "maps": ("f4", (m, k, 96, 96)), "peaks": ("f4", (m, k)),
             "methods": ("U", (m,)), "ids": ("U", (k,)), "labels": ("i1", (k,)), "scores": ("f4", (k,)),
             "layer": ("U", ()), "target": ("U", ()), "checkpoint": ("U", ())}
    for name, (kind, shape) in forms.items():
        array = arrays[name]
        if kind not in (array.dtype.str[1:], array.dtype.kind) or array.shape != shape:
            raise InputError(f"{path}: {name} is {array.dtype} {list(array.shape)}, expected {kind} "
                             f"{list(shape)}; make it again: python -m experiments.explain")
    if not set(arrays["methods"].tolist()) <= set(TITLES):
        raise InputError(f"{path}: methods are {', '.join(arrays['methods'].tolist())}, expected some of "
                         f"{', '.join(TITLES)}; make it again: python -m experiments.explain")
    for name in ("maps", "scores"):
        if not ((arrays[name] >= 0) & (arrays[name] <= 1)).all():
            raise InputError(f"{path}: {name} has values outside [0, 1]; "
                             "make it again: python -m experiments.explain")
    return Explanations(**arrays | {name: str(arrays[name]) for name in ("layer", "target", "checkpoint")})
