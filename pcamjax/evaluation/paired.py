"""Whether two models differ on the same patches: DeLong's test, the paired bootstrap and McNemar's test.

Only the bootstrap knows of slides. DeLong's and McNemar's tests take patches for independent, so their p-values are too
small where patches of one slide resemble each other.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest, norm, rankdata

from pcamjax.evaluation.bootstrap import SAMPLES, TAILS, Resampling, plan, quantiles, resampled
from pcamjax.evaluation.metrics import checked
from pcamjax.evaluation.operating_point import OperatingPoint, threshold_at
from pcamjax.evaluation.weighted_metrics import METRICS, WeightedMetrics
from pcamjax.inference.predictions import Predictions, require_same_patches


@dataclasses.dataclass(frozen=True)
class AucTest:
    """DeLong's test of equal AUC: both areas, the standard error of `first - second`, z, and the two-sided p."""

    first: float
    second: float
    standard_error: float
    z: float
    p: float


@dataclasses.dataclass(frozen=True)
class McNemarTest:
    """McNemar's test of equal accuracy: how many patches one model alone calls rightly, and the exact two-sided p."""

    first_alone_right: int
    second_alone_right: int
    p: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of both models, `first - second` with its 95 % interval, and the two-sided p by paired bootstrap.

    NaN where not defined; the difference was not defined in `left_out` of the resamples.
    """

    first: float
    second: float
    value: float
    low: float
    high: float
    p: float
    left_out: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same patches: a `Difference` of each of `weighted_metrics.METRICS`, and both tests."""

    differences: dict[str, Difference]
    resampling: Resampling
    delong: AucTest
    mcnemar: McNemarTest


class _Measured(NamedTuple):
    values: dict[str, float]
    drawn: dict[str, Float[np.ndarray, " samples"]]
    calls: Bool[np.ndarray, " n"]


def compare(first: Predictions, second: Predictions, *,
            points: tuple[OperatingPoint | None, OperatingPoint | None] = (None, None), samples: int = SAMPLES,
            seed: int = 0) -> Comparison:
    """Compares two models, each at its own operating point or at a score of 0.5.

    Raises:
      InputError: the predictions are of different patches, or as `bootstrap.intervals`.
    """
    return compare_each(second, [first], points=points[::-1], samples=samples, seed=seed)[0]


def compare_each(reference: Predictions, others: Sequence[Predictions], *,
                 points: tuple[OperatingPoint | None, OperatingPoint | None] = (None, None), samples: int = SAMPLES,
                 seed: int = 0) -> list[Comparison]:
    """Compares each of the others, as the first, with the reference, whose resamples are drawn once.

    Args:
      points: the operating point of the reference and that of the others; None is a score of 0.5.
    Raises:
      InputError: as `compare`.
    """
    for other in others:
        require_same_patches(other, reference)
    resampling = plan(reference, samples, seed)

    thresholds = [threshold_at(points[1], other) for other in others]

    def measured(model: Predictions, threshold: float) -> _Measured:
        measure = WeightedMetrics(model.labels, model.scores, threshold)
        return _Measured(measure.of_all(), resampled(measure, model, resampling),
                         model.scores.astype(np.float64) > threshold)

    theirs = measured(reference, threshold_at(points[0], reference))
    made = []
    for other, threshold in zip(others, thresholds, strict=True):
        ours = measured(other, threshold)
        differences = {name: _difference(ours.values[name], theirs.values[name], ours.drawn[name] - theirs.drawn[name],
                                         resampling) for name in METRICS}
        made.append(Comparison(differences, resampling, delong(other.labels, other.scores, reference.scores),
                               mcnemar(other.labels, ours.calls, theirs.calls)))
    return made


def delong(labels: Int[np.ndarray, " n"], first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]) -> AucTest:
    """DeLong, DeLong and Clarke-Pearson 1988, by midranks as in Sun and Xu 2014: O(n log n), equal scores count half.

    Identical scores have p = 1; with fewer than two patches of a class the test is not defined.

    Raises:
      InputError: as `metrics.evaluate`.
    """
    placements = [_placements(*checked(labels, scores)) for scores in (first, second)]
    few = min(map(len, placements[0]))
    areas = [float(positive.mean()) if few else math.nan for positive, _ in placements]
    if few < 2:
        return AucTest(*areas, math.nan, math.nan, math.nan)
    error = math.sqrt(sum(np.var(ours - theirs, ddof=1) / len(ours) for ours, theirs in zip(*placements, strict=True)))
    difference = areas[0] - areas[1]
    if error == 0:
        z = math.copysign(math.inf, difference) if difference else 0.0
    else:
        z = difference / error
    return AucTest(*areas, error, z, float(2 * norm.sf(abs(z))))


def mcnemar(labels: Int[np.ndarray, " n"], first: Bool[np.ndarray, " n"],
            second: Bool[np.ndarray, " n"]) -> McNemarTest:
    """McNemar 1947 of two models' calls (True: metastasis), by the binomial distribution at any number of patches.

    Raises:
      InputError: as `metrics.evaluate`.
    """
    labels, _ = checked(labels, first)
    right, other_right = first == (labels == 1), second == (labels == 1)
    alone, other_alone = int(np.sum(right & ~other_right)), int(np.sum(other_right & ~right))
    p = float(binomtest(alone, alone + other_alone).pvalue) if alone + other_alone else 1.0
    return McNemarTest(alone, other_alone, p)


def holm(p: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Holm 1979: the p-values of m tests, adjusted so that one false find among all m is as rare as a level says.

    NaN stands for a test that was not made; it does not count.
    """
    made = np.flatnonzero(~np.isnan(p))
    order = made[np.argsort(p[made], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _placements(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]
                ) -> tuple[Float[np.ndarray, " positives"], Float[np.ndarray, " negatives"]]:
    """For each patch the share of the other class that it is rightly ranked against; their mean is the AUC."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    ranks = rankdata(np.concatenate([positive, negative]))
    above = ranks[:len(positive)] - rankdata(positive)
    below = ranks[len(positive):] - rankdata(negative)
    return above / max(1, len(negative)), 1 - below / max(1, len(positive))


def _difference(first: float, second: float, drawn: Float[np.ndarray, " samples"],
                resampling: Resampling) -> Difference:
    """p is the level at which the percentile interval just reaches 0 (Davison and Hinkley 1997, section 4.4)."""
    low, high = quantiles(drawn, resampling, *TAILS)
    defined = drawn[~np.isnan(drawn)]
    tail = min(np.sum(defined <= 0), np.sum(defined >= 0))
    p = float("nan") if np.isnan(low) else min(1.0, 2 * float(tail + 1) / (len(defined) + 1))
    return Difference(first, second, first - second, low, high, p, len(drawn) - len(defined))
