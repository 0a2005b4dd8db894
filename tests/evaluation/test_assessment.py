"""One record of what predictions are worth: each figure is that of the module that computes it."""

import dataclasses

import numpy as np
import pytest
from made_predictions import correlated

from pcamjax.errors import InputError
from pcamjax.evaluation.assessment import CALIBRATED, WITHOUT_CHOICE, assess
from pcamjax.evaluation.bootstrap import intervals
from pcamjax.evaluation.calibration import fit_temperature
from pcamjax.evaluation.metrics import evaluate
from pcamjax.evaluation.operating_point import evaluate_at, youden
from pcamjax.files import without_nan


@pytest.fixture
def parts():
    """The validation and the test part of one model."""
    made = [correlated(np.random.default_rng(seed), 6, 20) for seed in (0, 1)]
    return [dataclasses.replace(one, meta=one.meta | {"role": role})
            for one, role in zip(made, ("valid", "test"), strict=True)]


def test_each_figure_is_its_modules(parts):
    valid, test = parts
    record = assess(test, valid, samples=100, seed=3)
    expected = intervals(test, samples=100, seed=3)
    assert record["intervals"] == {name: dataclasses.asdict(each) for name, each in expected.estimates.items()}
    assert "6 slides" in record["resampling"] and "fewer than 40 slides" in record["resampling"]
    assert sum(slide["n"] for slide in record["slides"].values()) == len(test)
    name, slide = next(iter(record["slides"].items()))
    of_it = test.slides == name
    assert slide["accuracy"] == evaluate(test.labels[of_it], test.scores[of_it]).accuracy

    temperature, chosen = fit_temperature(valid), record["choices"]
    calibrated = intervals(temperature.apply(test), samples=100, seed=3).estimates
    assert chosen["temperature"] == {"value": temperature.value, "intervals": {
        name: dataclasses.asdict(calibrated[name]) for name in CALIBRATED}}
    point, (first, second) = youden(valid), chosen["operating_points"]
    assert first["threshold"] == point.threshold and first["on_validation"]["recall"] == point.sensitivity
    assert first["intervals"]["recall"]["value"] == evaluate_at(point, test).recall
    assert second["rule"] == "sensitivity at least 0.95" and second["on_validation"]["recall"] >= 0.95
    without_nan(record)


def test_without_validation_nothing_is_chosen(parts):
    valid, test = parts
    assert assess(test, samples=10)["choices"] == WITHOUT_CHOICE
    assert "must be measured on another" in assess(valid, valid, samples=10)["choices"]
    healthy = dataclasses.replace(valid, labels=np.zeros_like(valid.labels))
    assert "all 120 validation patches have the label 0" in assess(test, healthy, samples=10)["choices"]
    with pytest.raises(InputError, match="was chosen for run"):
        assess(test, dataclasses.replace(valid, meta=valid.meta | {"run": "another"}), samples=10)


def test_unknown_slides_are_told(parts):
    test = dataclasses.replace(parts[1], slides=np.full(len(parts[1]), ""))
    record = assess(test, samples=10)
    assert "slides of 120 of 120 patches are not known" in record["slides"]
    assert "slides are not known" in record["resampling"]
