"""The metrics of each slide, for a mean can hide a slide on which a model fails."""

import numpy as np

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import Metrics, checked, evaluate
from pcamjax.evaluation.operating_point import OperatingPoint, threshold_at
from pcamjax.inference.predictions import Predictions


def by_slide(predictions: Predictions, point: OperatingPoint | None = None) -> dict[str, Metrics]:
    """The metrics of every slide, in the order of their names, at an operating point or a score of 0.5.

    Raises:
      InputError: the slide of a patch is not known, or as `metrics.evaluate` and `operating_point.threshold_at`.
    """
    labels, scores = checked(predictions.labels, predictions.scores)
    if unknown := int(np.sum(predictions.slides == "")):
        raise InputError(f"the slides of {unknown} of {len(labels)} patches are not known, expected all; prepare the "
                         "patches from a source that tells slides (the official one: --source=pcam)")
    threshold = threshold_at(point, predictions)
    names, number = np.unique(predictions.slides, return_inverse=True)
    order = np.argsort(number, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(number))[:-1])
    return {str(name): evaluate(labels[of], scores[of], threshold) for name, of in zip(names, rows, strict=True)}
