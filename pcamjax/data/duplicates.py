"""Exact duplicates: patches whose pixels are equal to the bit, found by the digests of the store."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from pcamjax.data.store import Patches

EXAMPLES = 20


@dataclass(frozen=True)
class DuplicateReport:
    """How often patches repeat each other; a group is a set of two or more patches with the same pixels.

    `within` counts, for each part, the patches that repeat an earlier one of that part; `across` counts, for
    each pair of parts "a, b", the images that occur in both. `examples` gives the ids of some groups: those
    whose labels contradict each other, if there are any.
    """

    patches: int
    groups: int
    repeats: int
    within: dict[str, int]
    across: dict[str, int]
    contradictory_groups: int
    examples: list[list[str]]

    def to_dict(self) -> dict[str, Any]:
        """The report as it is written to JSON."""
        return dataclasses.asdict(self)

    def summary(self) -> str:
        """The report in one line."""
        if not self.repeats:
            return f"no exact duplicates among {self.patches} patches"
        inside = ", ".join(f"{count} within {part}" for part, count in self.within.items() if count)
        between = ", ".join(f"{count} in both {pair}" for pair, count in self.across.items() if count)
        where = f"{inside or 'none within a part'}; {between or 'none across parts'}"
        return (f"{self.repeats} of {self.patches} patches repeat another exactly ({where}); "
                f"{self.contradictory_groups} groups have both labels")


def duplicate_groups(digests: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
    """Numbers the distinct images: patches with the same pixels, and only those, get the same number."""
    keys = np.ascontiguousarray(digests).view("S16").ravel()
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


def find_duplicates(patches: Patches) -> DuplicateReport:
    """Reports the exact duplicates within and across the parts of a store."""
    group = duplicate_groups(patches.digests)
    size = np.bincount(group)
    parts = list(dict.fromkeys(patches.parts.tolist()))
    present = np.stack([np.bincount(group[patches.parts == part], minlength=len(size)) for part in parts])
    both = np.ones(len(size), bool)
    for label in (0, 1):
        both &= np.bincount(group[patches.labels == label], minlength=len(size)) > 0
    shown = np.flatnonzero(both) if both.any() else np.flatnonzero(size > 1)
    return DuplicateReport(
        patches=len(patches), groups=int((size > 1).sum()), repeats=int((size - 1).sum()),
        within={part: int(np.maximum(row - 1, 0).sum()) for part, row in zip(parts, present, strict=True)},
        across={f"{parts[i]}, {parts[j]}": int(((present[i] > 0) & (present[j] > 0)).sum())
                for i in range(len(parts)) for j in range(i + 1, len(parts))},
        contradictory_groups=int(both.sum()),
        examples=[patches.ids[group == number].tolist() for number in shown[:EXAMPLES]])
