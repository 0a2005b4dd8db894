"""Intervals by the bootstrap over slides, which are what was sampled, or over patches where slides are not known.

Patches of one slide resemble each other. Drawn one by one they make intervals far too narrow; drawing whole slides
(Field and Welsh 2007, "Bootstrapping clustered data") keeps what they have in common. With few slides even these are
too narrow (Cameron and Miller 2015, section VI), and the result says so.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from pcamjax.errors import InputError
from pcamjax.evaluation.operating_point import OperatingPoint, threshold_at
from pcamjax.evaluation.weighted_metrics import GAP_CHANGE, METRICS, WeightedMetrics
from pcamjax.inference.predictions import Predictions

LEVEL = 0.95
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
SAMPLES = 2000
FEW_SLIDES = 40
_CHUNK = 2**19  # weights in memory at a time


@dataclasses.dataclass(frozen=True)
class Resampling:
    """How resamples were drawn: `count` slides or patches with replacement, `samples` times, from `seed`.

    warning: why the intervals are not to be trusted, "" where nothing speaks against them.
    """

    unit: Literal["slides", "patches"]
    count: int
    samples: int
    seed: int
    warning: str

    def __str__(self) -> str:
        text = (f"{LEVEL:.0%} intervals by bootstrap over {self.count} {self.unit}, {self.samples} samples, "
                f"seed {self.seed}")
        return f"{text}; {self.warning}" if self.warning else text


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval, NaN where not defined; it was not defined in `left_out` of the resamples."""

    value: float
    low: float
    high: float
    left_out: int


@dataclasses.dataclass(frozen=True)
class Intervals:
    """An `Estimate` of each of `weighted_metrics.METRICS`, and how the resamples were drawn."""

    estimates: dict[str, Estimate]
    resampling: Resampling


def intervals(predictions: Predictions, *, point: OperatingPoint | None = None, samples: int = SAMPLES,
              seed: int = 0) -> Intervals:
    """Every metric with its 95 % percentile interval (Efron and Tibshirani 1993, chapter 13).

    Patches are called at an operating point, or else at a score of 0.5. The expected calibration error has another
    interval, for it is biased upwards, and in a resample once more: by the triangle inequality it is off by no more
    than the gaps of all bins are together, so the 95th percentile of that sum is taken to both sides, down to 0. It
    covers as often where the true error is 0, and more often elsewhere.

    Raises:
      InputError: a label is missing, `samples` is not positive, or the point belongs to another model or split.
    """
    measure = WeightedMetrics(predictions.labels, predictions.scores, threshold_at(point, predictions))
    resampling = plan(predictions, samples, seed)
    values, drawn = measure.of_all(), resampled(measure, predictions, resampling)
    ends = {name: quantiles(drawn[name], resampling, *TAILS) for name in METRICS}
    ece, (change,) = values["expected_calibration_error"], quantiles(drawn[GAP_CHANGE], resampling, LEVEL)
    ends["expected_calibration_error"] = [float(np.maximum(0, ece - change)), ece + change]
    estimates = {name: Estimate(values[name], *ends[name], int(np.isnan(drawn[name]).sum())) for name in METRICS}
    return Intervals(estimates, resampling)


def plan(predictions: Predictions, samples: int, seed: int) -> Resampling:
    """What is drawn: slides if that of every patch is known, otherwise patches.

    Raises:
      InputError: `samples` is not positive.
    """
    if samples < 1:
        raise InputError(f"{samples} bootstrap samples, expected at least 1")
    known = predictions.slides != ""
    if not known.all():
        some = f"slides are known of {known.sum()} patches only" if known.any() else "slides are not known"
        return Resampling("patches", len(known), samples, seed, f"{some}: where patches of one slide resemble each "
                          "other these intervals are too narrow")
    count, warning = len(np.unique(predictions.slides)), ""
    if count < FEW_SLIDES:
        warning = f"fewer than {FEW_SLIDES} slides: these intervals are too narrow"
    if count == 1:
        warning = "one slide does not tell how slides differ: there are no intervals"
    return Resampling("slides", count, samples, seed, warning)


def resampled(measure: WeightedMetrics, predictions: Predictions, resampling: Resampling
              ) -> dict[str, Float[np.ndarray, " samples"]]:
    """Every metric in every resample; two models on the same patches get the same resamples."""
    number = np.arange(len(predictions))
    if resampling.unit == "slides":
        # Numbered as they come, so slides of one patch each give the bits that patches do.
        _, first, number = np.unique(predictions.slides, return_index=True, return_inverse=True)
        number = first.argsort().argsort()[number]
    rng, count = np.random.default_rng(resampling.seed), resampling.count
    step = max(1, _CHUNK // len(predictions))
    pieces = []
    for start in range(0, resampling.samples, step):
        counts = [np.bincount(rng.integers(count, size=count), minlength=count)
                  for _ in range(min(step, resampling.samples - start))]
        pieces.append(measure(np.take(np.stack(counts).astype(np.float64), number, axis=1)))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in (*METRICS, GAP_CHANGE)}


def quantiles(drawn: Float[np.ndarray, " samples"], resampling: Resampling, *levels: float) -> list[float]:
    """Of the resamples that define the figure; NaN where none does, or there is but one slide to draw."""
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) == 0 or resampling.count == 1:
        return [math.nan] * len(levels)
    return np.quantile(drawn, levels).tolist()
