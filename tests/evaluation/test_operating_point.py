"""Operating points: by hand, at the thresholds of scikit-learn's ROC curve, and from validation alone."""

import jaxtyping
import numpy as np
import pytest
import sklearn.metrics as sk
from made_predictions import predictions

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import evaluate
from pcamjax.evaluation.operating_point import evaluate_at, fixed_sensitivity, threshold_at, youden


@pytest.fixture
def valid():
    # From the top: + + - (+ -) - + -
    return predictions([1, 1, 0, 1, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.6, 0.4, 0.3, 0.1])


def test_youden_by_hand(valid):
    # TPR - FPR: 2/4 - 0 above 0.75, 3/4 - 2/4 above 0.5, 1 - 3/4 above 0.2.
    point = youden(valid)
    assert point.threshold == pytest.approx(0.75) and (point.sensitivity, point.specificity) == (0.5, 1)
    assert point.rule == "Youden" and point.chosen_on == valid.meta


@pytest.mark.parametrize(("target", "threshold", "sensitivity", "specificity"), [
    (0.25, 0.85, 0.25, 1), (0.26, 0.75, 0.5, 1), (0.75, 0.5, 0.75, 0.5), (1.0, 0.2, 1, 0.25)])
def test_fixed_sensitivity_by_hand(valid, target, threshold, sensitivity, specificity):
    point = fixed_sensitivity(valid, target)
    assert point.threshold == pytest.approx(threshold)
    assert (point.sensitivity, point.specificity) == (sensitivity, specificity)
    assert point.rule == f"sensitivity at least {target:g}"


@pytest.mark.parametrize("seed", range(3))
def test_as_the_roc_curve_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random(300) < 0.3).astype(int)
    made = predictions(labels, np.round(np.clip(0.3 * labels + 0.7 * rng.random(300), 0, 1), 2))
    false_positive, true_positive, _ = sk.roc_curve(labels, made.scores, drop_intermediate=False)
    best = youden(made)
    assert best.sensitivity + best.specificity - 1 == pytest.approx(np.max(true_positive - false_positive))
    fixed = fixed_sensitivity(made, 0.9)
    assert 1 - fixed.specificity == pytest.approx(false_positive[true_positive >= 0.9].min())
    for point in (best, fixed):
        metrics = evaluate_at(point, made)
        assert (metrics.recall, metrics.specificity) == pytest.approx((point.sensitivity, point.specificity))


def test_neighbouring_scores_are_told_apart_where_it_is_applied():
    near = np.nextafter(np.float32(0.7), np.float32(1))
    made = predictions([0, 1], [0.7, near])
    point = youden(made)
    assert evaluate_at(point, made).accuracy == 1
    assert evaluate(made.labels, made.scores, threshold_at(point, made)).accuracy == 1


def test_all_or_nothing_can_be_called():
    assert evaluate_at(fixed_sensitivity(every := predictions([1, 0], [0, 1]), 1.0), every).recall == 1
    assert evaluate_at(fixed_sensitivity(every := predictions([1, 0], [1, 1]), 1.0), every).recall == 1
    backwards = predictions([0, 1], [1, 0.5])
    assert youden(backwards).threshold == 1 and evaluate_at(youden(backwards), backwards).specificity == 1


def test_applied_to_test(valid):
    test = predictions([1, 0, 1], [0.74, 0.1, 0.76], role="test")
    assert evaluate_at(youden(valid), test).confusion == ((1, 0), (1, 1))
    assert threshold_at(None, test) == 0.5
    other = predictions([1, 0], [0.9, 0.1], role="test", temperature=2.0)
    with pytest.raises(InputError, match="operating point was chosen for temperature None, these predictions have 2.0"):
        evaluate_at(youden(valid), other)


@pytest.mark.parametrize("choose", [youden, lambda made: fixed_sensitivity(made, 0.9)])
def test_it_is_chosen_on_validation_alone(choose):
    for role in ("test", "train"):
        with pytest.raises(InputError, match=f"an operating point is chosen on the part 'valid' alone, .*{role!r}"):
            choose(predictions([0, 1], [0.1, 0.9], role=role))
    with pytest.raises(InputError, match="all 2 validation patches have the label 1"):
        choose(predictions([1, 1], [0.1, 0.9]))
    with pytest.raises(InputError, match="1 of 2 patches have no label"):
        choose(predictions([1, -1], [0.1, 0.9]))
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(AttributeError):  # bare arrays do not say what they are of
            choose(np.array([0.1, 0.9]))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("target", [0.0, -0.5, 1.01, float("nan")])
def test_a_sensitivity_out_of_range(valid, target):
    with pytest.raises(InputError, match="expected a number above 0, at most 1"):
        fixed_sensitivity(valid, target)
