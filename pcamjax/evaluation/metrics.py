"""Labels and scores -> accuracy, precision, recall, F1, specificity, AUC, confusion matrix and ROC curve.

A figure that is not defined (precision without a positive call, AUC of one class) is NaN, which JSON writes
as null and the pages as a dash. It is never 0 or 1 by convention.
"""

import dataclasses
import os
from typing import Any, NamedTuple

import numpy as np
import sklearn.metrics
from jaxtyping import Float, Int

from pcamjax.errors import InputError
from pcamjax.files import read_json
from pcamjax.inference.predictions import THRESHOLD, Predictions


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Figures of merit of n labelled patches; fractions in [0, 1], NaN where not defined.

    confusion: counts [[true negative, false positive], [false negative, true positive]], a row a true class.
    confusion_percent: the same in per cent of each row.
    """

    n: int
    positives: int
    negatives: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    specificity: float
    auc: float
    confusion: tuple[tuple[int, int], tuple[int, int]]
    confusion_percent: tuple[tuple[float, float], tuple[float, float]]


class RocCurve(NamedTuple):
    """The points of a ROC curve; `thresholds` starts with infinity, at which nothing is called positive."""

    false_positive_rate: Float[np.ndarray, " k"]
    true_positive_rate: Float[np.ndarray, " k"]
    thresholds: Float[np.ndarray, " k"]


def evaluate(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], threshold: float = THRESHOLD) -> Metrics:
    """Compares scores in [0, 1] with labels, 1 for metastasis and 0 for healthy; a score above `threshold` is called.

    Raises:
      InputError: a label is missing, lengths differ, there is no patch, or a score is not in [0, 1].
    """
    labels, scores = checked(labels, scores)
    truth, called = labels == 1, scores.astype(np.float64) > threshold
    tp, tn = int(np.sum(truth & called)), int(np.sum(~truth & ~called))
    fp, fn = int(np.sum(~truth & called)), int(np.sum(truth & ~called))
    positives, negatives = tp + fn, tn + fp
    return Metrics(
        n=len(labels), positives=positives, negatives=negatives,
        accuracy=_ratio(tp + tn, len(labels)),
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, positives),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        specificity=_ratio(tn, negatives),
        auc=float(sklearn.metrics.roc_auc_score(labels, scores)) if positives and negatives else float("nan"),
        confusion=((tn, fp), (fn, tp)),
        confusion_percent=((100 * _ratio(tn, negatives), 100 * _ratio(fp, negatives)),
                           (100 * _ratio(fn, positives), 100 * _ratio(tp, positives))),
    )


def roc_curve(labels: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> RocCurve:
    """The true against the false positive rate at every score that occurs, as a threshold.

    Raises:
      InputError: as `evaluate`, or only one class is there.
    """
    labels, scores = checked(labels, scores)
    if labels.min() == labels.max():
        raise InputError(f"all {len(labels)} patches have the label {labels[0]}, expected both classes for "
                         "a ROC curve; score a split that has both")
    return RocCurve(*sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False))


def evaluation_record(predictions: Predictions) -> dict[str, Any]:
    """What `evaluation/<split>.json` of a run folder holds: the metrics and what they were computed from.

    Raises:
      InputError: as `evaluate`.
    """
    metrics = evaluate(predictions.labels, predictions.scores)
    both = metrics.positives and metrics.negatives
    curve = roc_curve(predictions.labels, predictions.scores)._asdict() if both else {}
    return {
        "predictions": predictions.meta,
        "threshold": THRESHOLD,
        "undefined": "null: the figure is not defined, such as precision without a positive call",
        "metrics": dataclasses.asdict(metrics),
        "roc": {name: values.tolist() for name, values in curve.items()},
    }


def read_evaluation(path: str | os.PathLike) -> tuple[Metrics, dict[str, Any]]:
    """Reads an `evaluation/<split>.json`: its metrics, and the `meta` of the predictions they belong to.

    Raises:
      InputError: the file is missing or not of this form.
    """
    record = read_json(path)
    try:
        values = {key: _from_json(value) for key, value in record["metrics"].items()}
        metrics, meta = Metrics(**values), dict(record["predictions"])
        numbers = (*dataclasses.astuple(metrics)[:9], *sum(metrics.confusion + metrics.confusion_percent, ()))
        if not all(isinstance(number, int | float) for number in numbers) or len(numbers) != 17:
            raise ValueError("not all metrics are numbers")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not an evaluation ({type(error).__name__}: {error}); make it again: "
                         "python -m experiments.evaluate") from None
    return metrics, meta


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    return float("nan") if value is None else value


def checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores as they came; raises InputError as `evaluate` does."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape or labels.size == 0:
        raise InputError(f"labels have the shape {labels.shape} and scores {scores.shape}, expected one of "
                         "each for every patch, and at least one patch")
    if (labels == -1).any():
        raise InputError(f"{int((labels == -1).sum())} of {len(labels)} patches have no label, which scoring "
                         "needs; choose a labelled split, or use `python -m experiments.predict`")
    if not np.isin(labels, (0, 1)).all():
        raise InputError(f"the label {labels[~np.isin(labels, (0, 1))][0]} is there, expected 0 or 1")
    wrong = ~((scores >= 0) & (scores <= 1))
    if wrong.any():
        raise InputError(f"the score {scores[wrong][0]} is there, expected a number in [0, 1]")
    return labels, scores


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
