"""The synthetic generator as a source of patches, with the tumour masks that real sources do not have."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from pcamjax.data.store import BATCH, PatchBatch
from pcamjax.data.synthetic import PARTS, SyntheticPatches, generate
from pcamjax.errors import InputError


@dataclass(frozen=True)
class SyntheticSource:
    """`counts[part]` synthetic patches of each part, one part after the other, with ids "<part>_<number>"."""

    counts: dict[str, int]
    seed: int

    @property
    def name(self) -> str:
        return f"synthetic, seed {self.seed}"

    def __len__(self) -> int:
        return sum(self.counts.values())

    def batches(self) -> Iterator[PatchBatch]:
        for part in self.counts:
            for start, drawn in self._stretches(part):
                ids = [f"{part}_{start + row:06d}" for row in range(len(drawn.images))]
                yield PatchBatch(drawn.images, drawn.labels, ids, drawn.slides.tolist(), [part] * len(ids))

    def tumour_masks(self, part: str) -> Bool[np.ndarray, "n 96 96"]:
        """The tumour mask of every patch of a part, in the part's order, drawn again from the seed.

        Raises:
          InputError: the source has no such part.
        """
        if part not in self.counts:
            raise InputError(f"{self.name}: no part {part!r}, expected one of {', '.join(self.counts)}")
        masks = [drawn.tumour_masks for _, drawn in self._stretches(part)]
        return np.concatenate([np.empty((0, 96, 96), bool), *masks])

    def _stretches(self, part: str) -> Iterator[tuple[int, SyntheticPatches]]:
        for start in range(0, self.counts[part], BATCH):
            count = min(BATCH, self.counts[part] - start)
            yield start, generate(count, self.seed, part=part, start=start)


def open_synthetic(counts: Mapping[str, int], seed: int) -> SyntheticSource:
    """Opens the generator as a source.

    Args:
      counts: number of patches per part, of "train", "valid" and "test" those that are wanted.
      seed: 0 or more; same seed, same bytes. A part's patches do not depend on the other parts' counts.

    Raises:
      InputError: a part is unknown, a count or the seed is negative.
    """
    if not counts or not set(counts) <= set(PARTS):
        raise InputError(f"synthetic patches: parts are {list(counts)}, expected some of {', '.join(PARTS)}")
    for part, count in counts.items():
        if count < 0:
            raise InputError(f"synthetic patches: {count} of part {part!r} asked for, expected 0 or more")
    generate(0, seed)
    return SyntheticSource(dict(counts), seed)


def masks_of(source: str, ids: Iterable[str]) -> Bool[np.ndarray, "n 96 96"] | None:
    """The tumour masks of a store's patches by their ids, drawn again from the seed that its source's name tells.

    None if the source is not this generator: real patches have no masks.
    """
    seed = re.fullmatch(r"synthetic, seed (\d+)", source)
    if seed is None:
        return None
    places = (name.rsplit("_", 1) for name in ids)
    masks = [generate(1, int(seed[1]), part=part, start=int(number)).tumour_masks for part, number in places]
    return np.concatenate([np.empty((0, 96, 96), bool), *masks])
