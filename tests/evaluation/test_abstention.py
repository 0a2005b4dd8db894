"""Risk against coverage: by hand, with ties, and of models that know or do not know when they err."""

import numpy as np
import pytest
from made_predictions import predictions

from pcamjax.errors import InputError
from pcamjax.evaluation.abstention import risk_coverage


def test_by_hand():
    # Surest first: right, wrong, right, right.
    curve = risk_coverage(predictions([0, 0, 1, 1], margins=[-4, 3, 2, 1]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 4])
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_of_equals_each_is_as_likely():
    # One surely right, then three equally sure of which one is wrong: of k of them k/3 are, in the mean.
    labels, margins = np.array([1, 1, 0, 0]), np.array([5, 2, 2, -2])
    for order in ([0, 1, 2, 3], [2, 3, 1, 0], [3, 1, 0, 2]):
        curve = risk_coverage(predictions(labels[order], margins=margins[order]))
        np.testing.assert_allclose(curve.risk, [0, 1 / 3 / 2, 2 / 3 / 3, 1 / 4])


def test_a_margin_of_nothing_calls_healthy():
    assert risk_coverage(predictions([0, 1], margins=[0, 0])).risk.tolist() == [0.5, 0.5]


def test_margins_order_what_scores_round_to_equals():
    sure = risk_coverage(predictions([1, 0], margins=[200, 100]))
    assert sure.risk.tolist() == [0, 0.5]
    assert risk_coverage(predictions([1, 0], [1, 1])).risk.tolist() == [0.5, 0.5]


def test_it_tells_a_model_that_knows_when_it_errs():
    rng = np.random.default_rng(0)
    labels, margins = rng.integers(0, 2, 5000), rng.normal(0, 2, 5000)
    knowing = risk_coverage(predictions(rng.random(5000) < 1 / (1 + np.exp(-margins)), margins=margins))
    guessing = risk_coverage(predictions(labels, margins=margins))
    assert knowing.area < 0.6 * knowing.risk[-1]
    assert guessing.area == pytest.approx(guessing.risk[-1], abs=0.05)


def test_one_class_and_no_label():
    assert risk_coverage(predictions([1, 1], [0.9, 0.8])).area == 0
    with pytest.raises(InputError, match="1 of 2 patches have no label"):
        risk_coverage(predictions([1, -1], [0.9, 0.8]))
