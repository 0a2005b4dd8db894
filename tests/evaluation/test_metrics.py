"""Metrics: equal to scikit-learn's, to figures worked out by hand, and honest about what is not defined."""

import dataclasses
import json
import math

import jaxtyping
import numpy as np
import pytest
import sklearn.metrics as sk

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import evaluate, evaluation_record, read_evaluation, roc_curve
from pcamjax.files import write_json
from pcamjax.inference.predictions import Predictions


@pytest.fixture
def as_users_call():
    """Without the shape checks that tests run under, which would catch the error first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def arrays(labels, scores):
    return np.array(labels, np.int8), np.array(scores, np.float32)


def predictions(labels, scores) -> Predictions:
    labels, scores = arrays(labels, scores)
    ids = np.array([f"p{i}" for i in range(len(labels))])
    return Predictions(ids, np.full(len(ids), ""), labels, scores, None, {"model": "m", "leaks_slides": True})


def test_by_hand():
    # 4 metastases, 6 healthy, 5 called; a tie at 0.5 is healthy. Of 24 pairs 18 are in order and 1 is tied.
    metrics = evaluate(*arrays([1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
                               [0.9, 0.8, 0.6, 0.5, 0.85, 0.7, 0.5, 0.4, 0.2, 0.1]))
    assert (metrics.n, metrics.positives, metrics.negatives) == (10, 4, 6)
    assert metrics.confusion == ((4, 2), (1, 3))
    np.testing.assert_allclose(metrics.confusion_percent, [[400 / 6, 200 / 6], [25, 75]])
    expected = {"accuracy": 0.7, "precision": 0.6, "recall": 0.75, "f1": 2 / 3, "specificity": 4 / 6}
    for name, value in expected.items():
        assert getattr(metrics, name) == pytest.approx(value), name
    assert metrics.auc == pytest.approx(18.5 / 24)


@pytest.mark.parametrize("seed", range(5))
def test_as_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(500) < rng.uniform(0.1, 0.9)).astype(np.int8)
    scores = np.round(np.clip(0.25 * labels + 0.8 * rng.random(500), 0, 1), 2).astype(np.float32)  # with ties
    called = scores > 0.5
    metrics = evaluate(labels, scores)
    assert metrics.accuracy == pytest.approx(sk.accuracy_score(labels, called))
    assert metrics.precision == pytest.approx(sk.precision_score(labels, called))
    assert metrics.recall == pytest.approx(sk.recall_score(labels, called))
    assert metrics.f1 == pytest.approx(sk.f1_score(labels, called))
    assert metrics.specificity == pytest.approx(sk.recall_score(labels, called, pos_label=0))
    assert metrics.auc == pytest.approx(sk.roc_auc_score(labels, scores))
    np.testing.assert_array_equal(metrics.confusion, sk.confusion_matrix(labels, called))
    np.testing.assert_allclose(metrics.confusion_percent,
                               100 * sk.confusion_matrix(labels, called, normalize="true"))
    curve = roc_curve(labels, scores)
    assert sk.auc(curve.false_positive_rate, curve.true_positive_rate) == pytest.approx(metrics.auc)
    at = np.sum(curve.thresholds > 0.5) - 1
    assert curve.true_positive_rate[at] == pytest.approx(metrics.recall)
    assert curve.false_positive_rate[at] == pytest.approx(1 - metrics.specificity)


@pytest.mark.parametrize(("labels", "scores", "undefined"), [
    ([1, 1], [0.9, 0.2], {"specificity", "auc"}),
    ([0, 0], [0.9, 0.2], {"recall", "auc"}),
    ([0, 0], [0.1, 0.2], {"precision", "recall", "f1", "auc"}),
    ([0, 1], [0.1, 0.2], {"precision"}),
])
def test_undefined_is_nan_and_null(tmp_path, labels, scores, undefined):
    made = predictions(labels, scores)
    metrics = evaluate(made.labels, made.scores)
    fractions = ("accuracy", "precision", "recall", "f1", "specificity", "auc")
    assert {name for name in fractions if math.isnan(getattr(metrics, name))} == undefined
    write_json(tmp_path / "test.json", evaluation_record(made))
    record = json.loads((tmp_path / "test.json").read_text())
    assert {name for name in fractions if record["metrics"][name] is None} == undefined
    assert "not defined" in record["undefined"] and record["threshold"] == 0.5
    back, meta = read_evaluation(tmp_path / "test.json")
    np.testing.assert_equal(dataclasses.astuple(back), dataclasses.astuple(metrics))
    assert meta == made.meta


@pytest.mark.parametrize(("labels", "scores", "message"), [
    ([1, -1, -1], [0.1, 0.2, 0.3], "2 of 3 patches have no label"),
    ([1, 2], [0.1, 0.2], "the label 2 is there"),
    ([1, 0], [0.1, np.nan], "the score nan is there"),
    ([1, 0], [0.1, 1.5], "the score 1.5 is there"),
    ([], [], "at least one patch"),
])
def test_bad_input(labels, scores, message):
    for function in (evaluate, roc_curve):
        with pytest.raises(InputError, match=message):
            function(*arrays(labels, scores))


def test_lengths_differ(as_users_call):
    with pytest.raises(InputError, match=r"labels have the shape \(3,\) and scores \(1,\)"):
        evaluate(*arrays([1, 0, 1], [0.5]))


def test_no_roc_curve_of_one_class():
    with pytest.raises(InputError, match="all 2 patches have the label 0"):
        roc_curve(*arrays([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize("change", [
    lambda record: record.pop("metrics"),
    lambda record: record["metrics"].pop("auc"),
    lambda record: record["metrics"].update(auc="0.9"),
    lambda record: record["metrics"].update(confusion=[[1, 2]]),
    lambda record: record.update(predictions=3),
])
def test_a_damaged_evaluation_is_refused(tmp_path, change):
    record = json.loads(json.dumps(evaluation_record(predictions([0, 1], [0.1, 0.9]))))
    change(record)
    write_json(tmp_path / "test.json", record)
    with pytest.raises(InputError, match="test.json: not an evaluation"):
        read_evaluation(tmp_path / "test.json")


def test_the_written_roc_has_the_area_of_the_auc():
    rng = np.random.default_rng(0)
    record = evaluation_record(predictions(rng.integers(0, 2, 200), rng.random(200).astype(np.float32)))
    area = np.trapezoid(record["roc"]["true_positive_rate"], record["roc"]["false_positive_rate"])
    assert area == pytest.approx(record["metrics"]["auc"])
    assert evaluation_record(predictions([1, 1], [0.1, 0.9]))["roc"] == {}
