"""Metrics by slide: each slide's own patches, and what a slide without metastasis does not define."""

import numpy as np
import pytest
from made_predictions import correlated, predictions

from pcamjax.errors import InputError
from pcamjax.evaluation.by_slide import by_slide
from pcamjax.evaluation.metrics import evaluate
from pcamjax.evaluation.operating_point import youden


def test_each_slide_has_its_own_patches():
    made = correlated(np.random.default_rng(0), 5, 30)
    order = np.random.default_rng(1).permutation(150)
    made = predictions(made.labels[order], made.scores[order], made.slides[order])
    slides = by_slide(made)
    assert list(slides) == [f"slide_{i}" for i in range(5)]
    for name, metrics in slides.items():
        of = made.slides == name
        np.testing.assert_equal(metrics, evaluate(made.labels[of], made.scores[of]))
    assert sum(metrics.n for metrics in slides.values()) == 150


def test_a_slide_without_metastasis():
    slides = by_slide(predictions([0, 0, 1, 0], [0.2, 0.6, 0.9, 0.3], ["b", "b", "a", "a"]))
    assert list(slides) == ["a", "b"] and slides["a"].auc == 1
    assert slides["b"].specificity == 0.5 and np.isnan([slides["b"].auc, slides["b"].recall]).all()


def test_at_an_operating_point():
    valid = predictions([0, 0, 1], [0.6, 0.7, 0.8])
    test = predictions([0, 1], [0.7, 0.9], ["a", "a"], role="test")
    assert by_slide(test)["a"].accuracy == 0.5 and by_slide(test, youden(valid))["a"].accuracy == 1


def test_slides_that_are_not_known():
    with pytest.raises(InputError, match="slides of 1 of 2 patches are not known"):
        by_slide(predictions([0, 1], [0.2, 0.9], ["a", ""]))
