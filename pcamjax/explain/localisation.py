"""How well heat maps point at what is known to be there: tumour masks, or the square that bears the label.

Maps are taken as they are, raw or normalised, at the size of the image; no measure changes when a map is multiplied
by a number. A map of zeros points nowhere: every measure gives it the share of the image that the mask covers, which
is what chance would. Where a mask is empty there is nothing to find, and the measures are NaN.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from pcamjax.data.synthetic import CENTRE, SIZE
from pcamjax.errors import InputError

Maps = Float[np.ndarray, "n h w"]
Masks = Bool[np.ndarray, "n h w"]
PerPatch = Float[np.ndarray, " n"]

THRESHOLDS = tuple(k / 10 for k in range(1, 10))  # shares of a map's maximum
CENTRE_CHANCE = (CENTRE.stop - CENTRE.start) ** 2 / SIZE**2  # 1/9


def pointing_game(maps: Maps, masks: Masks) -> PerPatch:
    """Whether each map's maximum lies in its mask: 1 or 0, or the share of equal maxima that do.

    Zhang et al. 2018 (Int J Comput Vis 126), without their tolerance of 15 pixels.

    Raises:
      InputError: a map has a value that is negative or not finite.
    """
    _check(maps)
    return _share_inside(maps == maps.max((1, 2), keepdims=True), masks)


def energy_inside(maps: Maps, masks: Masks) -> PerPatch:
    """The share of each map's sum that lies in its mask, in 0..1 (Wang et al. 2020, arXiv 1910.01279, section 4.3).

    Raises:
      InputError: as `pointing_game`.
    """
    _check(maps)
    return _share_inside(maps, masks)


def centre_energy(maps: Float[np.ndarray, "n 96 96"]) -> PerPatch:
    """The share of each map's sum that lies in the centre 32x32, which bears PatchCamelyon's label; by chance 1/9.

    Raises:
      InputError: as `pointing_game`.
    """
    centre = np.zeros(maps.shape, bool)
    centre[:, CENTRE, CENTRE] = True
    return energy_inside(maps, centre)


def iou(maps: Maps, masks: Masks, thresholds: Sequence[float] = THRESHOLDS) -> Float[np.ndarray, "n t"]:
    """Intersection over union, in 0..1, of each mask and where its map reaches a threshold.

    Args:
      thresholds: shares of the map's maximum.
    Raises:
      InputError: as `pointing_game`.
    """
    _check(maps)
    peaks, size = maps.max((1, 2), keepdims=True), masks.sum((1, 2))
    columns = []
    for threshold in thresholds:
        chosen = maps >= threshold * peaks
        both = (chosen & masks).sum((1, 2))
        columns.append(both / (chosen.sum((1, 2)) + size - both))
    return np.where(size[:, None] > 0, np.stack(columns, 1), np.nan)


def best_iou(ious: Float[np.ndarray, "n t"]) -> PerPatch:
    """The column of `iou` whose mean is greatest: one threshold for all patches, chosen with the masks in sight."""
    return ious[:, np.nan_to_num(ious).sum(0).argmax()]


def area(masks: Masks) -> PerPatch:
    """The chance value of all measures here: the share of the image that a mask covers; NaN for an empty one."""
    covered = masks.mean((1, 2))
    return np.where(covered > 0, covered, np.nan)


def centre_gaussian(count: int, sigma: float = 16.0) -> Float[np.ndarray, "n 96 96"]:
    """Equal maps that know no image: a Gaussian around the centre, 1 there.

    The default lets one standard deviation, in pixels, reach the edge of the square that bears the label: what a map
    looks like that has learnt the label's rule and nothing else.
    """
    offset = np.arange(SIZE) - (SIZE - 1) / 2
    profile = np.exp(-(offset**2) / (2 * sigma**2))
    return np.repeat(np.outer(profile, profile)[None].astype(np.float32), count, 0)


def random_order(count: int, seed: int, cell: int = 1) -> Float[np.ndarray, "n 96 96"]:
    """Maps of uniform noise in 0..1, one value for each `cell` x `cell` pixels: chance, at the grain of a map.

    Raises:
      InputError: the cells do not fill the image.
    """
    if cell < 1 or SIZE % cell:
        raise InputError(f"cells of {cell} pixels: expected a divisor of {SIZE}")
    cells = np.random.default_rng(seed).random((count, SIZE // cell, SIZE // cell), np.float32)
    return cells.repeat(cell, 1).repeat(cell, 2)


def nest_groups(masks: Bool[np.ndarray, "n 96 96"]) -> dict[str, Bool[np.ndarray, " n"]]:
    """Which patches have their tumour where, by its mask; one with no tumour is in no group.

    "central": at least a quarter of the tumour's pixels lie in the centre 32x32 (label 1).
    "off centre": some do, but more than three quarters lie outside (label 1).
    "outside": none do (label 0), tumour that does not count for the label.

    A quarter is the median of the generator's positive patches. Off centre, the centre's four pixels lie in tumour
    little more often than any others (in 148 of `generate(600, 0)`: 29 % against 24 %), so that a map that is bright in
    the centre and knows nothing more gains little.
    """
    inside, everywhere = masks[:, CENTRE, CENTRE].sum((1, 2)), masks.sum((1, 2))
    return {"central": (inside > 0) & (4 * inside >= everywhere),
            "off centre": (inside > 0) & (4 * inside < everywhere),
            "outside": (inside == 0) & (everywhere > 0)}


def _share_inside(weights: np.ndarray, masks: Masks) -> PerPatch:
    total = weights.sum((1, 2), dtype=np.float64)
    inside = np.where(masks, weights, 0).sum((1, 2), dtype=np.float64)
    chance = area(masks)
    return np.where((total > 0) & ~np.isnan(chance), inside / np.where(total > 0, total, 1), chance)


def _check(maps: Maps) -> None:
    wrong = ~(np.isfinite(maps) & (maps >= 0))
    if wrong.any():
        place = np.argwhere(wrong)[0]
        raise InputError(f"map {place[0]} is {maps[tuple(place)]} at {tuple(map(int, place[1:]))}; expected numbers of "
                         "at least 0: cut what is negative")
