"""What a reviewer asks of predictions, in one record: intervals, calibration, operating points, abstention, slides."""

import dataclasses
from typing import Any

import numpy as np

from pcamjax.errors import InputError
from pcamjax.evaluation.abstention import risk_coverage
from pcamjax.evaluation.bootstrap import SAMPLES, intervals
from pcamjax.evaluation.by_slide import by_slide
from pcamjax.evaluation.calibration import fit_temperature
from pcamjax.evaluation.operating_point import OperatingPoint, fixed_sensitivity, youden
from pcamjax.inference.predictions import Predictions

SENSITIVITY = 0.95  # of the second operating point: what screening asks for
IN_POINTS = ("recall", "specificity", "precision", "accuracy")
CALIBRATED = ("expected_calibration_error", "brier")
IN_SLIDES = ("n", "positives", "accuracy", "recall", "specificity", "auc")
WITHOUT_CHOICE = ("none: evaluate the validation part (python -m experiments.evaluate --split=valid), then this one "
                  "again")


def assess(predictions: Predictions, valid: Predictions | None = None, *, samples: int = SAMPLES, seed: int = 0
           ) -> dict[str, Any]:
    """Every metric with its 95 % interval, and what follows from choices that were made on validation.

    Args:
      valid: the same model's predictions of the validation part. Without them, and of that part itself, nothing is
        chosen, and the record says so.
    Returns:
      JSON values: intervals and resampling; area_under_risk_coverage; slides, the metrics of each, or why they are not
      there; choices, a temperature and two operating points with what they give on these patches, or why not.
    Raises:
      InputError: a label is missing, or `valid` is of another model, split or part.
    """
    measured = intervals(predictions, samples=samples, seed=seed)
    return {"intervals": {name: dataclasses.asdict(estimate) for name, estimate in measured.estimates.items()},
            "resampling": str(measured.resampling),
            "area_under_risk_coverage": risk_coverage(predictions).area,
            "slides": _slides(predictions), "choices": _choices(predictions, valid, samples, seed)}


def _slides(predictions: Predictions) -> dict[str, dict[str, Any]] | str:
    try:
        return {name: {key: getattr(metrics, key) for key in IN_SLIDES}
                for name, metrics in by_slide(predictions).items()}
    except InputError as error:
        return str(error)


def _choices(predictions: Predictions, valid: Predictions | None, samples: int, seed: int) -> dict[str, Any] | str:
    if predictions.meta.get("role") == "valid":
        return "none: what is chosen on the validation part must be measured on another"
    if valid is None:
        return WITHOUT_CHOICE
    if np.unique(valid.labels).size < 2:
        return f"none: all {len(valid)} validation patches have the label {valid.labels[0]}"
    temperature = fit_temperature(valid)
    calibrated = intervals(temperature.apply(predictions), samples=samples, seed=seed).estimates

    def at(point: OperatingPoint) -> dict[str, Any]:
        there = intervals(predictions, point=point, samples=samples, seed=seed).estimates
        return {"rule": point.rule, "threshold": point.threshold,
                "on_validation": {"recall": point.sensitivity, "specificity": point.specificity},
                "intervals": {name: dataclasses.asdict(there[name]) for name in IN_POINTS}}

    return {"temperature": {"value": temperature.value,
                            "intervals": {name: dataclasses.asdict(calibrated[name]) for name in CALIBRATED}},
            "operating_points": [at(point) for point in (youden(valid), fixed_sensitivity(valid, SENSITIVITY))]}
