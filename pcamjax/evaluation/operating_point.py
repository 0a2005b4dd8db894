"""The score above which a patch is called metastasis, chosen on validation and applied to other parts."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import Metrics, checked, evaluate
from pcamjax.evaluation.validation import require_same_model, require_validation
from pcamjax.inference.predictions import THRESHOLD, Predictions


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """A threshold, by which rule it was chosen, what it gave on validation, and the meta of those predictions."""

    rule: str
    threshold: float
    sensitivity: float
    specificity: float
    chosen_on: dict[str, Any]


def threshold_at(point: OperatingPoint | None, predictions: Predictions) -> float:
    """The threshold for predictions of any part of the split; without a point it is 0.5.

    Raises:
      InputError: the point was chosen for another model, split or temperature.
    """
    if point is None:
        return THRESHOLD
    require_same_model(point.chosen_on, predictions, "operating point")
    return point.threshold


def evaluate_at(point: OperatingPoint, predictions: Predictions) -> Metrics:
    """The metrics of predictions at an operating point.

    Raises:
      InputError: as `threshold_at` and `metrics.evaluate`.
    """
    return evaluate(predictions.labels, predictions.scores, threshold_at(point, predictions))


def youden(valid: Predictions) -> OperatingPoint:
    """The point with the greatest sensitivity + specificity on validation (Youden 1950); of equals the most specific.

    Raises:
      InputError: the predictions are not of the validation part, of one class alone, or as `metrics.evaluate`.
    """
    candidates = _candidates(valid)
    # In whole numbers, in which equals are equal.
    surplus = candidates.true_positives * candidates.negatives - candidates.false_positives * candidates.positives
    return candidates.point("Youden", int(np.argmax(surplus)), valid)


def fixed_sensitivity(valid: Predictions, target: float) -> OperatingPoint:
    """The most specific point with at least the sensitivity `target`, in (0, 1], on validation.

    Raises:
      InputError: `target` is out of range, or as `youden`.
    """
    if not 0 < target <= 1:
        raise InputError(f"sensitivity {target!r}: expected a number above 0, at most 1")
    candidates = _candidates(valid)
    enough = candidates.true_positives / candidates.positives >= target
    return candidates.point(f"sensitivity at least {target:g}", int(np.argmax(enough)), valid)


class _Candidates(NamedTuple):
    """Thresholds in descending order, the first above all scores and the last below, and the calls at each."""

    thresholds: Float[np.ndarray, " k"]
    true_positives: Int[np.ndarray, " k"]
    false_positives: Int[np.ndarray, " k"]
    positives: int
    negatives: int

    def point(self, rule: str, at: int, valid: Predictions) -> OperatingPoint:
        return OperatingPoint(rule, float(self.thresholds[at]), float(self.true_positives[at] / self.positives),
                              float(1 - self.false_positives[at] / self.negatives), valid.meta)


def _candidates(valid: Predictions) -> _Candidates:
    require_validation(valid, "an operating point")
    labels, scores = checked(valid.labels, valid.scores)
    if labels.min() == labels.max():
        raise InputError(f"all {len(labels)} validation patches have the label {labels[0]}, expected both classes to "
                         "choose an operating point on; validate on more slides")
    # Half-way between neighbours; -1 is below every score, so that one threshold calls all.
    values, place = np.unique(-scores.astype(np.float64), return_inverse=True)
    bounds = -np.concatenate([values[:1], values, [1.0]])
    true_positives, false_positives = (np.cumsum(np.bincount(place[labels == label] + 1, minlength=len(values) + 1))
                                       for label in (1, 0))
    return _Candidates((bounds[:-1] + bounds[1:]) / 2, true_positives, false_positives,
                       int(true_positives[-1]), int(false_positives[-1]))
