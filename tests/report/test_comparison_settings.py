"""How models were made, as their configurations say it, and what only a network can tell: its layers."""

import csv
import json

import pytest
from made_runs import scored, write_baseline, write_network

from pcamjax.report.comparison import write_comparison
from pcamjax.report.comparison_settings import optimizer_text


def rows(page, name):
    with open(page.parent / "tables" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return {next(iter(row.values())): list(row.values())[1:] for row in csv.DictReader(file)}


def extend(file, more):
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("settings")
    network = write_network(root / "network", "mobilenet", scored(0, 1.0))
    extend(network / "config.json", {
        "head": {"epochs": 3}, "epochs": 12, "batch_size": 32,
        "augmentation": {"flips": True, "zoom": 0.2, "shift": 0.0},
        "optimizer": {"name": "adam", "schedule": {"name": "cosine", "learning_rate": 3e-4}}})
    bare = write_network(root / "bare", "scratch2", scored(1, 1.0), fine_tuned=False)
    colours = write_baseline(root / "colours", "knn", scored(2, 1.0))
    extend(colours / "record.json", {"chosen": {"settings": {"n_neighbors": 15}}, "fitted_on": 16384})
    asked = []
    layers = lambda *of: asked.append(of) or (22, 85)  # noqa: E731
    return write_comparison([network, bare, colours], root / "page", layers=layers), asked


def test_settings_are_those_of_the_configuration_and_the_record(page):
    assert rows(page[0], "table_settings") == {
        "MobileNet": ["3 + 12", "32", "x.h5", "Adam 0.0003, cosine", "flips, zoom 0.2"],
        "scratch #2": ["not recorded", "not recorded", "drawn weights", "Adam", "none"],
        "colour histogram + k-NN": ["–", "–", "rgb histograms (8x8x8 bins)", "n_neighbors 15", "16,384 patches"]}


def test_layers_are_counted_of_the_fine_tuned_networks_that_were_run(page):
    assert page[1] == [("mobilenet", "conv_pw_3_relu")]
    table = rows(page[0], "table_3.1")
    assert table["MobileNet"][:2] == ["conv_pw_3_relu", "22 of 85"] and table["VGG19"][:2] == ["not run"] * 2


def test_plots_are_there_as_lines_too_and_patches_are_not(page):
    names = {path.name for path in (page[0].parent / "figures").glob("*.svg")}
    assert {"figure_4.1_bare.svg", "figure_4.6.svg", "figure_5.1.svg"} <= names
    assert not any(name.startswith(("figure_3.2", "figure_4.5", "figure_4.7")) for name in names)


@pytest.mark.parametrize(("optimizer", "text"), [
    ({}, "not recorded"), ({"name": "adamax", "momentum": 0.0}, "Adamax"),
    ({"name": "sgd", "momentum": 0.9, "nesterov": True, "schedule.learning_rate": 0.1}, "SGD 0.1, Nesterov momentum"),
    ({"name": "sgd", "momentum": 0.9, "nesterov": False, "schedule.learning_rate": 0.1,
      "schedule.name": "inverse_time"}, "SGD 0.1, momentum, inverse time")])
def test_optimizers_in_words(optimizer, text):
    assert optimizer_text({f"optimizer.{key}": value for key, value in optimizer.items()}) == text
