"""Metrics of weighted patches: equal to scikit-learn's of the same patches repeated, and NaN where not defined."""

import dataclasses
import math

import numpy as np
import pytest
import sklearn.metrics as sk
from made_predictions import predictions

from pcamjax.errors import InputError
from pcamjax.evaluation.calibration import reliability
from pcamjax.evaluation.metrics import evaluate
from pcamjax.evaluation.weighted_metrics import METRICS, WeightedMetrics


def by_scikit_learn(labels, scores, threshold=0.5):
    scores = scores.astype(np.float64)
    called, diagram = scores > threshold, reliability(labels, scores)
    gaps = np.abs(diagram.mean_score - diagram.positive_fraction)
    return {
        "accuracy": sk.accuracy_score(labels, called),
        "precision": sk.precision_score(labels, called),
        "recall": sk.recall_score(labels, called),
        "f1": sk.f1_score(labels, called),
        "specificity": sk.recall_score(labels, called, pos_label=0),
        "auc": sk.roc_auc_score(labels, scores),
        "average_precision": sk.average_precision_score(labels, scores),
        "brier": sk.brier_score_loss(labels, scores),
        "expected_calibration_error": np.nansum(gaps * diagram.count) / len(labels),
    }


@pytest.mark.parametrize("digits", [1, 2, 6])
def test_weights_are_repetitions(digits):
    rng = np.random.default_rng(digits)
    labels = (rng.random(300) < 0.4).astype(np.int8)
    scores = np.round(np.clip(0.25 * labels + 0.8 * rng.random(300), 0, 1), digits).astype(np.float32)
    weights = np.concatenate([np.ones((1, 300)), rng.integers(0, 4, (3, 300))]).astype(np.float64)
    for threshold in (0.5, 0.3):
        got = WeightedMetrics(labels, scores, threshold)(weights)
        for row, counts in enumerate(weights.astype(int)):
            expected = by_scikit_learn(np.repeat(labels, counts), np.repeat(scores, counts), threshold)
            assert METRICS == tuple(expected)
            np.testing.assert_allclose([got[name][row] for name in METRICS], list(expected.values()), rtol=1e-12)


def test_whole_numbers_are_exact_with_as_many_patches_as_pcam_tests_on():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 32768).astype(np.int8)
    scores = np.clip(0.3 * labels + 0.7 * rng.random(32768), 0, 1).astype(np.float32)
    ours, whole = WeightedMetrics(labels, scores).of_all(), dataclasses.asdict(evaluate(labels, scores))
    for name in ("accuracy", "precision", "recall", "f1", "specificity"):
        assert ours[name] == whole[name]
    assert ours["auc"] == pytest.approx(whole["auc"], rel=1e-13)


def test_by_hand_with_ties():
    # Of the four pairs three are in order and one is tied.
    ours = WeightedMetrics(np.array([1, 1, 0, 0]), np.array([0.9, 0.8, 0.8, 0.2])).of_all()
    assert ours["auc"] == 3.5 / 4
    assert ours["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert ours["brier"] == pytest.approx((0.01 + 0.04 + 0.64 + 0.04) / 4)
    # 0.8 is the upper end of bin 12 (of 15), alone with its neighbour; 0.9 and 0.2 lie alone.
    assert ours["expected_calibration_error"] == pytest.approx((0.1 + abs(2 * 0.8 - 1) + 0.2) / 4)


@pytest.mark.parametrize(("labels", "scores", "undefined"), [
    ([1, 1], [0.9, 0.2], {"specificity", "auc"}),
    ([0, 0], [0.9, 0.2], {"recall", "auc", "average_precision"}),
    ([0, 0], [0.1, 0.2], {"precision", "recall", "f1", "auc", "average_precision"}),
    ([0, 1], [0.1, 0.2], {"precision"}),
])
def test_undefined_is_nan_as_of_evaluate(labels, scores, undefined):
    made = predictions(labels, scores)
    ours = WeightedMetrics(made.labels, made.scores).of_all()
    assert {name for name in METRICS if math.isnan(ours[name])} == undefined
    whole = dataclasses.asdict(evaluate(made.labels, made.scores))
    for name in METRICS[:6]:
        np.testing.assert_equal(ours[name], whole[name])


def test_a_class_without_weight_is_a_class_that_is_not_there():
    measure = WeightedMetrics(np.array([1, 0, 0]), np.array([0.9, 0.8, 0.1]))
    got = measure(np.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0]]))
    np.testing.assert_equal(got["auc"], [np.nan] * 3)
    np.testing.assert_equal(got["accuracy"], [0.5, 1, np.nan])
    np.testing.assert_equal(got["average_precision"], [np.nan, 1, np.nan])


def test_unlabelled_patches_are_refused():
    with pytest.raises(InputError, match="1 of 2 patches have no label"):
        WeightedMetrics(np.array([1, -1]), np.array([0.5, 0.5]))
