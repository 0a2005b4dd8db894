"""Reliability diagrams equal to scikit-learn's; temperatures that are found, as scikit-learn finds them."""

import warnings

import numpy as np
import pytest
from made_predictions import predictions
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from pcamjax.errors import InputError
from pcamjax.evaluation.calibration import BINS, fit_temperature, reliability


def overconfident(factor: float = 3.0, n: int = 4000, seed: int = 0, **meta):
    """Labels drawn with the probabilities of margins, and logits whose margins are `factor` times these."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 2, n)
    return predictions(rng.random(n) < expit(margins), margins=factor * margins, **meta)


def test_reliability_as_scikit_learn():
    made = overconfident(n=200)
    diagram = reliability(made.labels, made.scores)
    there = diagram.count > 0
    fraction, mean = calibration_curve(made.labels, made.scores.astype(np.float64), n_bins=BINS)
    np.testing.assert_allclose(diagram.positive_fraction[there], fraction)
    np.testing.assert_allclose(diagram.mean_score[there], mean)
    assert diagram.count.sum() == 200 and len(diagram.edges) == BINS + 1


def test_reliability_by_hand():
    diagram = reliability(np.array([0, 0, 1, 1, 0]), np.array([0, 0.05, 0.2, 1, 0.95]))
    assert diagram.count.tolist() == [2, 0, 1] + [0] * 11 + [2]  # 0.2 is the upper end of the third
    np.testing.assert_allclose(diagram.mean_score[[0, 2, 14]], [0.025, 0.2, 0.975])
    np.testing.assert_equal(diagram.positive_fraction[[0, 1, 2, 14]], [0, np.nan, 1, 0.5])


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_temperature_is_found(factor):
    valid = overconfident(factor)
    found = fit_temperature(valid)
    assert found.value == pytest.approx(factor, rel=0.1)
    losses = [-np.mean(np.log(expit((2 * valid.labels - 1) * valid.margins / (found.value * step))))
              for step in (1 / found.value, 0.999, 1, 1.001)]
    assert found.loss_before == pytest.approx(losses[0]) and found.loss_after == pytest.approx(losses[2])
    assert losses[2] < min(losses[1], losses[3]) and losses[2] <= losses[0]


def test_as_scikit_learn():
    valid, test = overconfident(), overconfident(seed=1, role="test")
    identity = LogisticRegression()
    identity.coef_, identity.intercept_, identity.classes_ = np.ones((1, 1)), np.zeros(1), np.array([0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-learn's own making
        judge = CalibratedClassifierCV(FrozenEstimator(identity), method="temperature")
        judge.fit(valid.margins[:, None], valid.labels)
        expected = judge.predict_proba(test.margins[:, None])[:, 1]
    got = fit_temperature(valid).apply(test)
    np.testing.assert_allclose(got.scores, expected, atol=1e-4)


@pytest.mark.parametrize("with_logits", [True, False])
def test_applied_to_another_part(with_logits):
    test = overconfident(role="test", seed=1)
    found = fit_temperature(overconfident())
    if not with_logits:
        test = predictions(test.labels, test.scores, role="test")
    got = found.apply(test)
    np.testing.assert_allclose(got.scores, expit(test.margins / found.value), atol=1e-6)
    assert got.meta == test.meta | {"temperature": found.value} and (got.logits is not None) == with_logits
    assert got.ids is test.ids and ((got.scores > 0.5) == (test.scores > 0.5)).all()
    with pytest.raises(InputError, match="chosen for temperature None, these predictions have"):
        found.apply(got)
    with pytest.raises(InputError, match="divided by the temperature .* already"):
        fit_temperature(found.apply(overconfident()))


def test_where_the_loss_has_no_least():
    assert fit_temperature(predictions([0, 0, 1, 1], margins=[-2, -1, 1, 2])).value == 0.01
    assert fit_temperature(predictions([1, 1, 0, 0], margins=[-2, -1, 1, 2])).value == 100
    assert fit_temperature(predictions([1, 1, 1, 1], margins=[1, 2, 3, 4])).value == 0.01
    assert fit_temperature(predictions([0, 1], margins=[0, 0])).value == 100


def test_extreme_margins():
    found = fit_temperature(predictions([0, 1, 0, 1], margins=[-1e30, 1e30, 300, 800]))
    assert np.isfinite([found.value, found.loss_before, found.loss_after]).all()
    assert found.loss_after < found.loss_before
    sure = fit_temperature(predictions([0, 1, 0, 1], [0, 1, 1, 1]))  # scores without logits, one of them wrong
    assert 1 < sure.value < 100 and sure.loss_after < sure.loss_before


@pytest.mark.parametrize("role", ["test", "train", None])
def test_it_is_fitted_on_validation_alone(role):
    with pytest.raises(InputError, match=f"a temperature is chosen on the part 'valid' alone, .* of {role!r}"):
        fit_temperature(overconfident(n=20, role=role))


@pytest.mark.parametrize("change", [{"run": "s"}, {"checkpoint": "best, step 3"}, {"split": "by_slide"},
                                    {"store_sha256": "cd"}, {"averaged": "symmetries"}])
def test_it_is_applied_to_the_same_model_and_split_alone(change):
    found = fit_temperature(overconfident(n=50))
    with pytest.raises(InputError, match=f"the temperature was chosen for {next(iter(change))} .*, these predictions"):
        found.apply(overconfident(n=20, role="test", **change))
