"""Means of what was measured patch by patch, with the interval that the choice of patches leaves."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

BLOCKS, BLOCK = 20, 100  # 2000 resamples, whose counts are held a block at a time


Name = TypeVar("Name", bound=Hashable)


class Estimate(NamedTuple):
    """The mean over n patches and its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int


def mean_intervals(measures: Mapping[Name, Float[np.ndarray, " n"]], seed: int) -> dict[Name, Estimate]:
    """The mean of each measure with the percentile bootstrap's 95 % interval (Efron and Tibshirani 1993, chapter 13).

    Patches are drawn anew, the same for all measures, as if each were independent of the others: where they share
    slides, an interval that knew of that would be wider. A NaN is a patch for which a measure is not defined; it is
    left out, and `n` counts the others.

    Args:
      measures: one value a patch, by the measure's name.
      seed: of the resamples.
    """
    table = np.stack(list(measures.values()), axis=1, dtype=np.float64)
    n, rng = len(table), np.random.default_rng(seed)
    defined = ~np.isnan(table)
    values, means = np.where(defined, table, 0), np.empty((0, table.shape[1]))
    if n:
        draws = (rng.multinomial(n, np.full(n, 1 / n), BLOCK).astype(np.float64) for _ in range(BLOCKS))
        with np.errstate(invalid="ignore"):  # a resample may hold none of the patches that count
            means = np.concatenate([(times @ values) / (times @ defined) for times in draws])
    return {name: _estimate(table[defined[:, i], i], means[:, i]) for i, name in enumerate(measures)}


def _estimate(values: Float[np.ndarray, " n"], means: Float[np.ndarray, " resamples"]) -> Estimate:
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan, 0)
    low, high = np.nanquantile(means, (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high), len(values))
