"""The published values: whole, and such as they can be."""

import pytest

from pcamjax.models import MODELS
from pcamjax.report.thesis import METRICS, PUBLISHED

NETWORKS = [key for key, row in PUBLISHED.items() if row.family in ("scratch", "fine-tuned")]


def test_nine_networks_three_histogram_and_three_feature_models_have_rows():
    families = [row.family for row in PUBLISHED.values()]
    assert [families.count(name) for name in ("scratch", "fine-tuned", "histogram", "features")] == [3, 6, 3, 3]
    assert set(NETWORKS) <= set(MODELS)


@pytest.mark.parametrize("name", NETWORKS)
def test_f1_is_that_of_precision_and_recall_and_parameters_are_those_of_our_networks(name):
    row = PUBLISHED[name]
    values = dict(zip(METRICS, row.metrics, strict=True))
    precision, recall = values["precision"], values["recall"]
    assert values["f1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=0.011)
    # Of a test set with 60 % healthy patches, to what its rounding leaves open.
    positives = (values["accuracy"] - values["specificity"]) / (recall - values["specificity"])
    assert 0.38 < positives < 0.43
    assert row.parameters == MODELS[name].parameters


def test_accuracy_orders_the_networks_as_published():
    by_accuracy = sorted(NETWORKS, key=lambda name: -PUBLISHED[name].metrics[0])
    assert by_accuracy == ["vgg19", "mobilenet", "scratch3", "densenet201", "xception", "scratch2", "inception_v3",
                           "resnet50", "scratch1"]
