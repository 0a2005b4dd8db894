"""Metrics of weighted patches, for many weightings at once: what a bootstrap asks for.

The patches are sorted by their scores once. Every metric then follows from cumulative weights of both classes, where
equal scores are one step.
"""

import numpy as np
from jaxtyping import Float, Int

from pcamjax.evaluation.calibration import bin_numbers
from pcamjax.evaluation.metrics import checked
from pcamjax.inference.predictions import THRESHOLD

METRICS = ("accuracy", "precision", "recall", "f1", "specificity", "auc", "average_precision", "brier",
           "expected_calibration_error")

GAP_CHANGE = "gap_change"
"""By how much weights change the gaps |mean score - fraction of metastasis| of all bins, with their signs, together."""


class WeightedMetrics:
    """The `METRICS` of labelled patches, scores above `threshold` called, as a function of how much each patch counts.

    average_precision: the mean of the precisions at all thresholds, weighted by steps of recall, as in sklearn.
    brier: the mean of (score - label)^2 (Brier 1950).
    expected_calibration_error: the mean over patches of |mean score - fraction of metastasis| in their bins, 15 of one
      width (Naeini et al. 2015), for the probability of metastasis and not that of the likelier class.

    Raises:
      InputError: as `metrics.evaluate`.
    """

    def __init__(self, labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float = THRESHOLD):
        labels, scores = checked(labels, scores)
        self._order = np.argsort(-scores, kind="stable")
        scores, labels = scores[self._order].astype(np.float64), labels[self._order].astype(np.float64)
        self._labels = labels
        self._last_of_equals = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
        self._called = int(np.sum(scores[self._last_of_equals] > threshold))
        self._errors = scores - labels
        self._first_of_bins = np.flatnonzero(np.diff(bin_numbers(scores), prepend=-1))
        self._gaps = np.add.reduceat(self._errors, self._first_of_bins) / len(scores)

    def __call__(self, weights: Float[np.ndarray, "b n"]) -> dict[str, Float[np.ndarray, " b"]]:
        """Every metric and the `GAP_CHANGE` under each of b weightings, such as the counts of a resample.

        NaN where one is not defined.
        """
        weights = np.take(weights, self._order, axis=1)
        total, positive = self._cumulative(weights), self._cumulative(weights * self._labels)
        negative = total - positive
        whole, positives, negatives = total[:, -1], positive[:, -1], negative[:, -1]
        tp, fp = positive[:, self._called], negative[:, self._called]
        gaps = _ratio(np.add.reduceat(weights * self._errors, self._first_of_bins, axis=1), whole[:, None])
        # A pair of one score counts half.
        pairs = np.einsum("bk,bk->b", np.diff(negative), positive[:, 1:] + positive[:, :-1]) / 2
        precisions = np.einsum("bk,bk->b", np.diff(positive), _ratio(positive, total, 0.0)[:, 1:])
        return {
            "accuracy": _ratio(tp + negatives - fp, whole),
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, positives),
            "f1": _ratio(2 * tp, tp + fp + positives),
            "specificity": _ratio(negatives - fp, negatives),
            "auc": _ratio(pairs, positives * negatives),
            "average_precision": _ratio(precisions, positives),
            "brier": _ratio(weights @ self._errors**2, whole),
            "expected_calibration_error": np.abs(gaps).sum(1),
            GAP_CHANGE: np.abs(gaps - self._gaps).sum(1),
        }

    def of_all(self) -> dict[str, float]:
        """Every metric where every patch counts once."""
        values = self(np.ones((1, len(self._order))))
        return {name: float(values[name][0]) for name in METRICS}

    def _cumulative(self, weights: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b k"]:
        """The weight above each score that occurs, from the greatest down, and of all patches at last."""
        return np.pad(np.take(weights.cumsum(1), self._last_of_equals, axis=1), ((0, 0), (1, 0)))


def _ratio(part: np.ndarray, whole: np.ndarray, undefined: float = np.nan) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, undefined), where=whole > 0)
