"""Intervals: those of a plain loop over resamples, by slide and by patch, and as wide as slides that differ demand."""

import dataclasses
import math
import time

import numpy as np
import pytest
from made_predictions import correlated, predictions

from pcamjax.errors import InputError
from pcamjax.evaluation.bootstrap import intervals
from pcamjax.evaluation.calibration import reliability
from pcamjax.evaluation.operating_point import youden
from pcamjax.evaluation.weighted_metrics import METRICS, WeightedMetrics
from pcamjax.files import without_nan


def by_loop(made, rows_of_unit, samples, seed):
    """The metrics of one resample after the other, rows and all."""
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(samples):
        rows = np.concatenate([rows_of_unit[i] for i in rng.integers(len(rows_of_unit), size=len(rows_of_unit))])
        metrics = WeightedMetrics(made.labels[rows], made.scores[rows]).of_all()
        drawn.append(metrics | {"change": np.abs(gaps(made, rows) - gaps(made, slice(None))).sum()})
    return {name: np.array([metrics[name] for metrics in drawn]) for name in (*METRICS, "change")}


def gaps(made, rows):
    """What each bin adds to the expected calibration error, with its sign."""
    diagram = reliability(made.labels[rows], made.scores[rows])
    return np.nan_to_num(diagram.mean_score - diagram.positive_fraction) * diagram.count / diagram.count.sum()


@pytest.mark.parametrize("known", [True, False])
def test_as_a_plain_loop(known):
    made = correlated(np.random.default_rng(0), 12, 5, known=known)
    shuffled = np.random.default_rng(1).permutation(60)
    made = dataclasses.replace(made, labels=made.labels[shuffled], scores=made.scores[shuffled],
                               slides=made.slides[shuffled])
    names = list(dict.fromkeys(made.slides.tolist()))
    units = [np.flatnonzero(made.slides == name) for name in names] if known else [[row] for row in range(60)]
    drawn = by_loop(made, units, 150, seed=3)
    result = intervals(made, samples=150, seed=3)
    for name in METRICS:
        estimate, values = result.estimates[name], drawn[name][~np.isnan(drawn[name])]
        low, high = np.percentile(values, [2.5, 97.5])
        if name == "expected_calibration_error":
            change = np.percentile(drawn["change"], 95)
            low, high = max(0, estimate.value - change), estimate.value + change
        np.testing.assert_allclose([estimate.low, estimate.high], [low, high], rtol=1e-10, err_msg=name)
        assert estimate.left_out == 150 - len(values)
    assert (result.resampling.unit, result.resampling.count) == (("slides", 12) if known else ("patches", 60))


def test_slides_of_one_patch_are_patches_to_the_bit():
    made = correlated(np.random.default_rng(5), 80, 1)
    reverse = np.array([f"slide_{99 - i}" for i in range(80)])  # whose order by name is not that of the patches
    by_patch = intervals(dataclasses.replace(made, slides=np.full(80, "")), samples=300, seed=1)
    for slides in (made.slides, reverse):
        by_slide = intervals(dataclasses.replace(made, slides=slides), samples=300, seed=1)
        assert by_slide.estimates == by_patch.estimates
        assert (by_slide.resampling.unit, by_patch.resampling.unit) == ("slides", "patches")
    assert intervals(made, samples=300, seed=2).estimates != by_patch.estimates


@pytest.mark.parametrize(("slides", "unit", "warning"), [
    ([f"s{i}" for i in range(40)], "slides", ""),
    ([f"s{i // 2}" for i in range(40)], "slides", "fewer than 40 slides: these intervals are too narrow"),
    (["s"] * 40, "slides", "one slide does not tell how slides differ: there are no intervals"),
    (None, "patches", "slides are not known: where patches of one slide resemble each other these intervals are too "
                      "narrow"),
    ([""] * 3 + ["s"] * 37, "patches", "slides are known of 37 patches only: where patches of one slide resemble each "
                                       "other these intervals are too narrow"),
])
def test_it_says_what_was_drawn_and_warns(slides, unit, warning):
    made = predictions([0, 1] * 20, np.linspace(0.1, 0.9, 40), slides)
    result = intervals(made, samples=50, seed=4)
    assert (result.resampling.unit, result.resampling.warning) == (unit, warning)
    text = f"95% intervals by bootstrap over {result.resampling.count} {unit}, 50 samples, seed 4"
    assert str(result.resampling) == (f"{text}; {warning}" if warning else text)
    assert math.isnan(result.estimates["auc"].low) == (slides == ["s"] * 40)


def test_resamples_without_a_class_are_left_out_and_counted():
    made = predictions([1] + [0] * 9, np.linspace(0.9, 0.1, 10), [f"s{i}" for i in range(10)])
    estimates = intervals(made, samples=2000).estimates
    # The one metastasis is not drawn with the probability 0.9^10.
    assert estimates["auc"].left_out == estimates["recall"].left_out == pytest.approx(2000 * 0.9**10, abs=80)
    assert (estimates["auc"].low, estimates["auc"].high) == (1, 1) and estimates["accuracy"].left_out == 0
    healthy = intervals(predictions([0] * 9, np.linspace(0.9, 0.1, 9)), samples=20).estimates
    np.testing.assert_equal(dataclasses.astuple(healthy["auc"]), (np.nan, np.nan, np.nan, 20))


def test_intervals_at_an_operating_point():
    valid, test = (correlated(np.random.default_rng(seed), 50, 4, shift=2, role=role)
                   for seed, role in ((0, "valid"), (1, "test")))
    point = youden(valid)
    at_half, at_point = intervals(test, samples=50), intervals(test, samples=50, point=point)
    assert at_point.estimates["auc"] == at_half.estimates["auc"]
    assert at_point.estimates["specificity"].low > at_half.estimates["specificity"].high
    expected = WeightedMetrics(test.labels, test.scores, point.threshold).of_all()
    assert at_point.estimates["accuracy"].value == expected["accuracy"]


def test_a_result_is_plain_values():
    result = dataclasses.asdict(intervals(predictions([0, 1], [0.2, 0.1]), samples=20))
    assert without_nan(result)["estimates"]["precision"]["value"] is None
    assert result["resampling"]["seed"] == 0


def test_no_samples():
    with pytest.raises(InputError, match="0 bootstrap samples, expected at least 1"):
        intervals(predictions([0, 1], [0.2, 0.9]), samples=0)


def coverage(slides: int, per_slide: int, repetitions: int, samples: int, known: bool = True) -> dict[str, float]:
    """How often the interval of new slides holds the value of all slides."""
    population = correlated(np.random.default_rng(10**6), 20000, per_slide)
    truth = WeightedMetrics(population.labels, population.scores).of_all()
    held = dict.fromkeys(METRICS, 0)
    for seed in range(repetitions):
        made = correlated(np.random.default_rng(seed), slides, per_slide, known=known)
        for name, estimate in intervals(made, samples=samples, seed=seed).estimates.items():
            held[name] += estimate.low <= truth[name] <= estimate.high
    return {name: count / repetitions for name, count in held.items()}


def test_intervals_by_slide_cover_where_those_by_patch_do_not():
    by_slide, by_patch = (coverage(50, 20, 60, 200, known) for known in (True, False))
    for name in ("accuracy", "recall", "specificity", "auc", "brier"):
        assert by_slide[name] > 0.85 and by_patch[name] < by_slide[name] - 0.1, (name, by_slide[name], by_patch[name])


@pytest.mark.exhaustive
@pytest.mark.parametrize(("slides", "per_slide", "least"), [(50, 20, 0.86), (100, 10, 0.90), (200, 5, 0.92)])
def test_coverage_is_near_95_percent(slides, per_slide, least):
    held = coverage(slides, per_slide, 500, 1000)
    for name in METRICS:
        assert least < held[name] < 0.985, (name, held[name])


@pytest.mark.exhaustive
def test_all_of_pcams_test_patches_take_seconds():
    made = correlated(np.random.default_rng(0), 216, 152)
    start = time.perf_counter()
    intervals(made)
    assert time.perf_counter() - start < 20
