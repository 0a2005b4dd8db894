"""The table of methods in its three forms."""

import csv

import numpy as np

from pcamjax.explain.intervals import Estimate
from pcamjax.explain.method_table import MethodRow, markdown, write_method_table
from pcamjax.explain.sanity import Survival
from pcamjax.files import read_json

NONE = Estimate(np.nan, np.nan, np.nan, 0)
ROWS = [MethodRow("chance", "none", "all", 9, {"tumour energy": Estimate(0.25, 0.2, 0.3, 9)}, {}),
        MethodRow("grad_cam", "trained", "all", 9,
                  {"tumour energy": Estimate(0.5, 0.4, 0.625, 9), "deletion": NONE,
                   "insertion": Estimate(0.75, 0.7, 0.8, 9)},
                  {"tumour energy": {"chance": Estimate(0.25, -0.05, 0.35, 9)}}, 120.44)]
SURVIVALS = {"grad_cam": [Survival("logits", Estimate(0.75, 0.5, 1, 9), Estimate(0.5, 0.5, 0.5, 9), NONE),
                          Survival("conv1", Estimate(0, -0.125, 0.125, 9), Estimate(0.25, 0, 0.5, 9), NONE)]}


def test_markdown():
    assert markdown(ROWS, SURVIVALS) == """\
### all: 9 patches

where the maps point:

| method | weights | tumour energy |
| --- | --- | --- |
| chance | none | 0.250 [0.200, 0.300] |
| grad_cam | trained | 0.500 [0.400, 0.625] |

whether the network follows them:

| method | weights | deletion | insertion |
| --- | --- | --- | --- |
| grad_cam | trained |  | 0.750 [0.700, 0.800] |

tumour energy: how much above:

| method | chance |
| --- | --- |
| grad_cam | +0.250 [-0.050, +0.350] |

Spearman correlation with the trained network's maps, layers drawn anew from the logits down to:

| method | logits | conv1 |
| --- | --- | --- |
| grad_cam | 0.750 [0.500, 1.000] | 0.000 [-0.125, 0.125] |

maps per second:

| method | maps/s |
| --- | --- |
| grad_cam | 120.4 |
"""
    assert "drawn anew" not in markdown(ROWS, {})


def test_files(tmp_path):
    write_method_table(tmp_path, "methods", {"split": "valid"}, ROWS, SURVIVALS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["methods.csv", "methods.json", "methods.md"]
    assert (tmp_path / "methods.md").read_text() == markdown(ROWS, SURVIVALS)
    record = read_json(tmp_path / "methods.json")
    assert record["split"] == "valid" and record["rows"][0]["maps_per_second"] is None
    assert record["rows"][1] == {
        "method": "grad_cam", "weights": "trained", "group": "all", "patches": 9, "maps_per_second": 120.44,
        "figures": {"tumour energy": {"mean": 0.5, "low": 0.4, "high": 0.625, "n": 9},
                    "deletion": {"mean": None, "low": None, "high": None, "n": 0},
                    "insertion": {"mean": 0.75, "low": 0.7, "high": 0.8, "n": 9}},
        "margins": {"tumour energy": {"chance": {"mean": 0.25, "low": -0.05, "high": 0.35, "n": 9}}}}
    assert record["cascade"]["grad_cam"][1]["spearman"] == {"mean": 0, "low": -0.125, "high": 0.125, "n": 9}
    chance, grad_cam = csv.DictReader((tmp_path / "methods.csv").read_text().splitlines())
    assert chance["tumour energy low"] == "0.2" and chance["deletion"] == "" and chance["maps/s"] == ""
    assert grad_cam["tumour energy above chance high"] == "0.35" and grad_cam["maps/s"] == "120.44"
