"""Means over patches and their bootstrap intervals."""

import numpy as np
import pytest

from pcamjax.explain.intervals import mean_intervals

VALUES = np.random.default_rng(1).normal(3, 2, 400)


def test_the_interval_of_a_mean_of_normal_values_is_the_textbook_one():
    made = mean_intervals({"value": VALUES}, seed=0)["value"]
    error = 1.96 * VALUES.std() / 20
    assert made.mean == pytest.approx(VALUES.mean()) and made.n == 400
    assert made.low == pytest.approx(VALUES.mean() - error, abs=0.1 * error)
    assert made.high == pytest.approx(VALUES.mean() + error, abs=0.1 * error)


def test_an_undefined_value_is_left_out_of_its_measure_alone():
    holes = np.where(np.arange(400) < 100, VALUES, np.nan)
    made = mean_intervals({"whole": VALUES, "holes": holes}, seed=0)
    assert made["holes"].n == 100 and made["holes"].mean == pytest.approx(VALUES[:100].mean())
    assert made["holes"].high - made["holes"].low == pytest.approx(3.92 * VALUES[:100].std() / 10, rel=0.15)
    # A product with a matrix of other width may add up in another order.
    assert made["whole"] == pytest.approx(mean_intervals({"whole": VALUES}, seed=0)["whole"], rel=1e-12)


def test_all_measures_are_resampled_alike():
    made = mean_intervals({"value": VALUES, ("value", "more"): VALUES + 1}, seed=0)
    np.testing.assert_allclose(np.subtract(made["value", "more"], made["value"]), [1, 1, 1, 0], atol=1e-9)


def test_the_seed_decides():
    first, again, other = (mean_intervals({"value": VALUES}, seed)["value"] for seed in (0, 0, 1))
    assert first == again and first.low != other.low


@pytest.mark.parametrize("values", [np.zeros(0), np.full(3, np.nan)], ids=["no patch", "none defined"])
def test_nothing_to_average(values):
    made = mean_intervals({"value": values}, seed=0)["value"]
    assert made.n == 0 and np.isnan(made[:3]).all()


def test_equal_values_have_an_interval_of_no_width():
    assert mean_intervals({"value": np.full(5, 0.25)}, seed=0)["value"] == (0.25, 0.25, 0.25, 5)
