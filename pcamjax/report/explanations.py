"""The heat maps of a run folder, as a page reads them."""

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int8, Shaped, UInt8

from pcamjax.errors import InputError
from pcamjax.inference.predictions import read_npz


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
