"""The summary of a network, and the tables in the docs that are made of it."""

from pathlib import Path

import pytest

from pcamjax.models import MODELS, create
from pcamjax.models.summary import layer_counts, network_table, summarise

# Of one 224x224 image with ImageNet's classifier, two for each multiply-add, as the papers give them to their digits.
PUBLISHED_FLOPS = {"vgg19": 39.3e9, "resnet50": 7.73e9, "densenet201": 8.58e9, "mobilenet": 1.137e9}


def test_the_page_of_networks_holds_the_table(monkeypatch):
    for name in ("tiny", "smooth"):  # which other tests have put there
        monkeypatch.delitem(MODELS, name, raising=False)
    page = (Path(__file__).resolve().parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    assert network_table() in page, "docs/networks.md is not the output of python -m experiments.summary --markdown"


@pytest.mark.parametrize("name", ["scratch1", "vgg19", "mobilenet_025"])
def test_rows_add_up_to_the_network(name):
    rows = summarise(create(name))
    assert sum(row.parameters + row.statistics for row in rows) == MODELS[name].parameters[0]
    names = {row.name for row in rows}
    assert all(set(row.reads) <= names for row in rows) and rows[-1].name == "logits"


@pytest.mark.parametrize("name", PUBLISHED_FLOPS)
def test_flops_are_those_of_the_papers(name):
    flops = sum(row.flops for row in summarise(MODELS[name].build(imagenet=True), 224))
    assert flops == pytest.approx(PUBLISHED_FLOPS[name], rel=0.01)


def test_flops_of_a_convolution_by_hand():
    """Scratch #1's second convolution: 92x92 outputs of 32 filters, each over 3x3x32 values."""
    row = next(row for row in summarise(create("scratch1")) if row.name == "block1_conv2")
    assert (row.shape, row.flops) == ((92, 92, 32), 2 * 92 * 92 * 32 * 9 * 32)
    assert row.parameters == 9 * 32 * 32 + 32 and row.reads == ("block1_bn1",)


@pytest.mark.parametrize(("name", "frozen", "counts"), [
    ("resnet50", "thesis", (102, 174)),  # as the thesis counts them
    ("mobilenet", "thesis", (42, 85)),  # one less, and one less in all: the thesis counts the input here
    ("scratch1", "none", (0, 18))])
def test_layers_of_a_backbone(name, frozen, counts):
    assert layer_counts(name, frozen) == counts
