"""Paired tests: DeLong's as MLstatkit and its definition have it, McNemar's by hand, the bootstrap by a loop."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as sk
from made_predictions import correlated, predictions
from scipy.stats import norm

from pcamjax.errors import InputError
from pcamjax.evaluation.operating_point import youden
from pcamjax.evaluation.paired import compare, compare_each, delong, holm, mcnemar
from pcamjax.evaluation.weighted_metrics import METRICS, WeightedMetrics

GOLDENS = json.loads(Path(__file__).with_name("delong_goldens.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("name", GOLDENS)
def test_delong_as_mlstatkit(name):
    golden = GOLDENS[name]
    test = delong(*(np.array(golden[key]) for key in ("labels", "first", "second")))
    assert test.first == pytest.approx(golden["auc_first"], rel=1e-12)
    assert test.second == pytest.approx(golden["auc_second"], rel=1e-12)
    assert test.z == pytest.approx(golden["z"], rel=1e-9)
    assert test.p == pytest.approx(golden["p"], rel=1e-9)


def test_delong_as_its_definition():
    """All pairs, where Sun and Xu need ranks alone; with ties within and across the classes."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 90)
    first, second = (np.round(0.2 * labels + 0.8 * rng.random(90), 1) for _ in range(2))

    def components(scores):
        positive, negative = scores[labels == 1][:, None], scores[labels == 0]
        kernel = (positive > negative) + 0.5 * (positive == negative)
        return kernel.mean(1), kernel.mean(0)

    covariance = sum(np.cov(a, b) / len(a) for a, b in zip(components(first), components(second), strict=True))
    difference = sk.roc_auc_score(labels, first) - sk.roc_auc_score(labels, second)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    test = delong(labels, first, second)
    assert test.first - test.second == pytest.approx(difference) and test.standard_error == pytest.approx(error)
    assert test.z == pytest.approx(difference / error) and test.p == pytest.approx(2 * norm.sf(abs(difference / error)))
    swapped = delong(labels, second, first)
    assert (swapped.z, swapped.p) == (-test.z, test.p)


def test_delong_of_what_does_not_vary():
    labels = np.array([1, 1, 0, 0])
    same = delong(labels, np.array([0.9, 0.3, 0.3, 0.1]), np.array([0.9, 0.3, 0.3, 0.1]))
    assert (same.first, same.standard_error, same.z, same.p) == (3.5 / 4, 0, 0, 1)
    opposite = delong(labels, np.array([0.9, 0.8, 0.2, 0.1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert (opposite.first, opposite.second, opposite.z, opposite.p) == (1, 0, math.inf, 0)
    extreme = delong(labels, np.array([1.0, 1, 1, 0]), np.array([1.0, 1e-38, 0, 0]))
    assert (extreme.first, extreme.second) == (0.75, 1) and 0 < extreme.p < 1


@pytest.mark.parametrize(("labels", "areas"), [([1, 1, 1], (math.nan, math.nan)), ([0, 0, 0], (math.nan, math.nan)),
                                               ([1, 0, 0], (1, 0))])
def test_delong_needs_two_of_each_class(labels, areas):
    test = delong(np.array(labels), np.array([0.9, 0.2, 0.1]), np.array([0.1, 0.2, 0.9]))
    np.testing.assert_equal((test.first, test.second, test.z, test.p), (*areas, math.nan, math.nan))


@pytest.mark.parametrize(("first_alone", "second_alone", "p"), [
    (5, 1, 14 / 64), (1, 5, 14 / 64), (0, 10, 2 / 1024), (3, 3, 1), (0, 0, 1)])
def test_mcnemar_by_hand(first_alone, second_alone, p):
    labels = np.array([1, 0] * 15)
    rows = np.arange(30)
    first = (labels == 1) ^ (rows < second_alone)
    second = (labels == 1) ^ ((rows >= 10) & (rows < 10 + first_alone)) ^ (rows >= 25)  # both are wrong ...
    first ^= rows >= 25  # ... on the last five
    test = mcnemar(labels, first, second)
    assert (test.first_alone_right, test.second_alone_right) == (first_alone, second_alone)
    assert test.p == pytest.approx(p)


def models(seed: int = 0, slides: int = 12, per_slide: int = 6, noise: float = 0.1, known: bool = True):
    """A model's predictions and those of another, which adds noise."""
    rng = np.random.default_rng(seed)
    first = correlated(rng, slides, per_slide, known=known)
    scores = np.clip(first.scores + rng.normal(0, noise, len(first)), 0, 1)
    return first, predictions(first.labels, scores, first.slides, run="other")


def test_the_bootstrap_draws_the_same_slides_for_both():
    first, second = models()
    result = compare(first, second, samples=99, seed=5)
    rows = [np.flatnonzero(first.slides == f"slide_{i}") for i in range(12)]
    rng, drawn = np.random.default_rng(5), []
    for _ in range(99):
        sample = np.concatenate([rows[i] for i in rng.integers(12, size=12)])
        a, b = (WeightedMetrics(one.labels[sample], one.scores[sample]).of_all() for one in (first, second))
        drawn.append([a[name] - b[name] for name in METRICS])
    for name, values in zip(METRICS, np.array(drawn).T, strict=True):
        difference = result.differences[name]
        assert difference.value == difference.first - difference.second
        np.testing.assert_allclose([difference.low, difference.high], np.percentile(values, [2.5, 97.5]), atol=1e-12)
        beyond = min((values < 1e-12).sum(), (values > -1e-12).sum())
        assert difference.p == pytest.approx(min(1, 2 * (beyond + 1) / 100)), name
    assert (result.resampling.unit, result.resampling.count) == ("slides", 12)
    assert "fewer than 40 slides" in result.resampling.warning


def test_a_model_does_not_differ_from_itself():
    first, _ = models()
    result = compare(first, first, samples=50)
    assert all((d.value, d.low, d.high, d.p) == (0, 0, 0, 1) for d in result.differences.values())
    assert result.delong.p == result.mcnemar.p == 1


def test_a_worse_model_is_found_worse():
    first, second = models(slides=50, noise=0.5)
    result = compare(first, second, samples=500)
    assert result.differences["auc"].p == result.differences["accuracy"].p == 2 / 501
    assert result.differences["auc"].low > 0 and result.delong.p < 1e-3 and result.mcnemar.p < 1e-3
    assert result.delong.first == pytest.approx(result.differences["auc"].first)


def test_each_model_has_its_own_operating_point():
    first, second = models(slides=50)
    shifted = predictions(second.labels, second.scores**4, second.slides, run="other")
    points = youden(first), youden(shifted)
    at_points, at_half = compare(first, shifted, points=points, samples=20), compare(first, shifted, samples=20)
    unshifted = compare(first, second, points=(points[0], youden(second)), samples=20)
    assert at_points.differences["accuracy"] == unshifted.differences["accuracy"] != at_half.differences["accuracy"]
    assert at_points.mcnemar == unshifted.mcnemar != at_half.mcnemar
    with pytest.raises(InputError, match="operating point was chosen for run 'other', these predictions have 'r'"):
        compare(first, shifted, points=points[::-1], samples=20)


def test_other_patches_are_refused():
    first, second = models()
    short = predictions(first.labels[:-1], first.scores[:-1], first.slides[:-1])
    with pytest.raises(InputError, match="predictions of 72 and of 71 patches, expected the same patches"):
        compare(first, short)
    labels = first.labels.copy()
    labels[3] ^= 1
    with pytest.raises(InputError, match=rf"labels\[3\] is '{first.labels[3]}' in one and '{labels[3]}' in the other"):
        compare(first, predictions(labels, first.scores, first.slides))
    with pytest.raises(InputError, match=r"slides\[0\] is 'slide_0' in one and '' in the other"):
        compare(first, predictions(first.labels, first.scores))


@pytest.mark.exhaustive
def test_models_alike_are_seldom_found_different():
    """Two models with independent errors of one size, on patches that resemble each other in a slide."""
    found = {"by slide": 0, "delong": 0}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        first = correlated(rng, 60, 20)
        errors = rng.normal(0, 1, (60, 1)) + rng.normal(0, 1, (60, 20))
        scores = 1 / (1 + np.exp(1 - 2 * first.labels - errors.ravel()))
        result = compare(first, predictions(first.labels, np.round(scores, 2), first.slides), samples=500, seed=seed)
        found["by slide"] += result.differences["auc"].p < 0.05
        found["delong"] += result.delong.p < 0.05
    assert 0.02 < found["by slide"] / 400 < 0.09 and found["delong"] / 400 > 0.15, found


def test_holm_is_as_by_hand():
    """Holm 1979: the smallest of three times 3, the next times 2, the greatest times 1, never falling, at most 1."""
    p = np.array([0.04, np.nan, 0.01, 0.03])
    np.testing.assert_allclose(holm(p), [0.06, np.nan, 0.03, 0.06])
    np.testing.assert_allclose(holm(np.array([0.7, 0.6])), [1, 1])
    assert holm(np.array([], float)).size == 0


def test_each_of_several_is_compared_as_it_is_alone():
    rng = np.random.default_rng(5)
    reference = correlated(rng, 6, 5)
    others = [dataclasses.replace(reference, scores=np.clip(reference.scores + shift, 0, 1).astype(np.float32))
              for shift in (0.1, -0.2)]
    made = compare_each(reference, others, samples=40)
    assert made == [compare(other, reference, samples=40) for other in others]
