"""The comparison: true to the run folders, published values apart, and open about what was not run or measured."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from made_runs import COST, scored, write_baseline, write_network
from matplotlib.text import Text

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import read_evaluation
from pcamjax.evaluation.paired import compare, delong, holm, mcnemar
from pcamjax.inference.predictions import Predictions
from pcamjax.report.comparison import write_comparison
from pcamjax.report.comparison_figures import Panel, Point, accuracy_against_cost
from pcamjax.report.thesis import PUBLISHED

ABSENT = "not run"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two seeds of scratch #1, MobileNet with its costs, VGG19 on other patches, two classical models."""
    root = tmp_path_factory.mktemp("compared")
    return {
        "first": write_network(root / "first", "scratch1", scored(0, 2.5), seed=0, fine_tuned=False),
        "second": write_network(root / "second", "scratch1", scored(1, 2.5), seed=1, fine_tuned=False),
        "mobile": write_network(root / "mobile", "mobilenet", scored(2, 0.5), cost=COST, test_ms=0.75),
        "other": write_network(root / "other", "vgg19", scored(3, 1.5, n=50)),
        "colours": write_baseline(root / "colours", "knn", scored(4, 4.0), cost=COST | {"parameters": None}),
        "features": write_baseline(root / "features", "svm", scored(5, 1.0), "mobilenet")}


@pytest.fixture(scope="session")
def compared(folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    return write_comparison(list(folders.values()), output)


def table(page, name):
    """The rows of a CSV by their first cell, each a dictionary."""
    with open(page.parent / "tables" / f"{name}.csv", newline="", encoding="utf-8") as file:
        return {next(iter(row.values())): row for row in csv.DictReader(file)}


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8").split("</style>")[-1]))


def test_measured_and_published_stand_in_columns_of_their_own(folders, compared):
    row = table(compared, "table_4.2")["MobileNet"]
    metrics, _ = read_evaluation(folders["mobile"] / "evaluation" / "test.json")
    interval = json.loads((folders["mobile"] / "evaluation" / "test.json").read_text())["assessment"]["intervals"]
    for column, name, place in (("accuracy", "accuracy", 0), ("recall", "recall", 2), ("AUC", "auc", 5)):
        low, high = (f"{100 * interval[name][end]:.2f}" for end in ("low", "high"))
        assert row[f"measured here: {column}"] == f"{100 * getattr(metrics, name):.2f} ref. [{low}, {high}]"
        assert row[f"published (measured on other data): {column}"] == f"{PUBLISHED['mobilenet'].metrics[place]:.2f}"


def test_every_model_of_the_thesis_has_a_row_and_what_was_not_run_says_so(compared):
    merit = table(compared, "table_4.1") | table(compared, "table_4.2") | table(compared, "table_classical")
    titles = {row.title for row in PUBLISHED.values()} - {"network features + SVM"}
    assert titles | {"MobileNet features + SVM"} <= set(merit)
    for title, row in merit.items():
        ran = title in ("scratch #1", "MobileNet", "VGG19", "colour histogram + k-NN",
                                "MobileNet features + SVM", "scratch #1, run first", "scratch #1, run second")
        assert (row["measured here: accuracy"] == ABSENT) != ran, title
    assert merit["ResNet50"]["published (measured on other data): accuracy"] == "92.17"
    assert "Not run: scratch #2, scratch #3, InceptionV3, ResNet50" in text_of(compared)


def test_runs_of_two_seeds_are_one_row_with_mean_and_range(folders, compared):
    rows = table(compared, "table_4.1")
    values = sorted(100 * read_evaluation(folders[name] / "evaluation" / "test.json")[0].auc
                    for name in ("first", "second"))
    assert values[0] < values[1]
    cell = rows["scratch #1"]["measured here: AUC"]
    assert cell == f"{sum(values) / 2:.2f} {values[0]:.2f} to {values[1]:.2f}"
    assert "[" in rows["scratch #1, run first"]["measured here: AUC"]
    assert rows["scratch #1, run first"]["published (measured on other data): AUC"] == ""


def test_runs_that_differ_in_more_than_the_seed_are_two_rows(folders, tmp_path):
    long = write_network(tmp_path / "long", "scratch1", scored(6, 2.0), seed=0, fine_tuned=False)
    config = json.loads((long / "config.json").read_text())
    (long / "config.json").write_text(json.dumps(config | {"epochs": 50}))
    page = write_comparison([folders["first"], long], tmp_path / "out")
    assert {"scratch #1 (first)", "scratch #1 (long)"} <= set(table(page, "table_4.1"))


def test_tests_are_those_of_each_metric_corrected_by_holm(folders, compared):
    made = {name: Predictions.load(folder / "predictions" / "test.npz") for name, folder in folders.items()}
    tested, reference = ("first", "second", "colours", "features"), made["mobile"]
    plain = {"AUC": [delong(made[name].labels, made[name].scores, reference.scores).p for name in tested],
             "accuracy": [mcnemar(made[name].labels, made[name].scores > 0.5, reference.scores > 0.5).p
                          for name in tested]}
    with open(compared.parent / "tables" / "table_tests.csv", newline="", encoding="utf-8") as file:
        rows = {(row["run"], row["metric"]): row for row in csv.DictReader(file)}
    marks = set()
    for metric, p in plain.items():
        for name, raw, adjusted in zip(tested, p, holm(np.array(p)), strict=True):
            row = rows[name, metric]
            for cell, value in ((row["p"], raw), (row["p by Holm"], adjusted)):
                assert cell == ("< 0.0001" if value < 1e-4 else f"{value:.4f}")
            lower = float(row["minus mobile, points"].split()[0]) < 0
            assert row["mark"] == ("≈" if adjusted >= 0.05 else "▼" if lower else "▲")
            marks.add(row["mark"])
    assert marks == {"≈", "▼"}
    assert rows["other", "all"]["p"] == "–" and "50 and of 60 patches" in rows["other", "all"]["test"]
    assert not set("▲▼≈") & set(table(compared, "table_4.2")["VGG19"]["measured here: AUC"])
    assert "other was not tested" in text_of(compared)


def test_values_for_programs_are_those_of_the_evaluation(folders, compared):
    with open(compared.parent / "tables" / "values.csv", newline="", encoding="utf-8") as file:
        rows = {(row["run"], row["metric"]): row for row in csv.DictReader(file)}
    assert len(rows) == 9 * len(folders)
    for name, folder in folders.items():
        for metric, found in json.loads((folder / "evaluation" / "test.json").read_text())["assessment"][
                "intervals"].items():
            assert [float(rows[name, metric][end]) for end in ("value", "low", "high")] == [
                found[end] for end in ("value", "low", "high")]
    assert rows["first", "auc"]["test"] == "DeLong" and rows["mobile", "auc"]["test"] == ""
    assert rows["first", "brier"]["test"] == "bootstrap" and rows["other", "auc"]["p"] == ""


def test_where_slides_are_known_no_p_is_smaller_than_that_of_the_bootstrap_over_slides(tmp_path):
    slides = np.repeat([f"slide_{i}" for i in range(6)], 10)
    made = [dataclasses.replace(scored(seed, error), slides=slides) for seed, error in ((2, 0.5), (4, 4.0))]
    runs = [write_network(tmp_path / name, "scratch1", each) for name, each in zip("ab", made, strict=True)]
    page = write_comparison(runs, tmp_path / "out", reference="a")
    found = compare(made[1], made[0])
    with open(page.parent / "tables" / "values.csv", newline="", encoding="utf-8") as file:
        p = {(row["run"], row["metric"]): row["p"] for row in csv.DictReader(file)}
    assert found.mcnemar.p < found.differences["accuracy"].p == float(p["b", "accuracy"])
    assert found.differences["auc"].p < found.delong.p == float(p["b", "auc"])


def test_a_named_reference_is_what_the_others_are_tested_against(folders, tmp_path):
    page = write_comparison([folders["first"], folders["mobile"]], tmp_path, reference="first")
    assert "▲" in table(page, "table_4.2")["MobileNet"]["measured here: AUC"]
    assert "ref." in table(page, "table_4.1")["scratch #1"]["measured here: AUC"]


def test_costs_are_those_of_the_files_and_what_is_missing_is_not_measured(compared):
    times, cost = table(compared, "table_5.3"), table(compared, "table_cost")
    row = times["MobileNet"]
    assert (row["measured here: training, ms an image"], row["measured here: test, ms an image"]) == ("12.50", "0.75")
    assert row["published (measured on other data): training, ms an image"] == "126.10"
    assert times["VGG19"]["measured here: test, ms an image"] == "not measured"
    assert times["Xception"]["measured here: test, ms an image"] == ABSENT
    assert [cost["MobileNet"][name] for name in ("size, MB", "GFLOPs an image", "energy of training, kWh",
                                                 "CO2 of training, kg", "method, region, device")] == [
        "19.00", "0.200", "0.5", "0.125", "codecarbon 3, ESP, 2 CPU cores"]
    assert table(compared, "table_5.2")["MobileNet"]["measured here: hours of training"] == "1.50"
    assert table(compared, "table_3.1")["VGG19"]["published (measured on other data): layers frozen"] == "6 of 21"


def test_the_page_is_one_file_with_every_table_and_figure(compared):
    page = compared.read_text(encoding="utf-8")
    assert "<script" not in page and "http://" not in page and "https://" not in page
    text = text_of(compared)
    for number in ("3.1", "4.1", "4.2", "5.1", "5.2", "5.3"):
        assert f"Table {number}." in text
    for number in ("3.2", "3.3", *(f"4.{i}" for i in range(1, 8)), "5.1", "5.2"):
        assert f"Figure {number}." in text
    pictures = {path.name for path in (compared.parent / "figures").glob("*.png")}
    assert {"figure_4.1_first.png", "figure_4.5_mobile.png", "figure_4.6.png", "figure_5.1.png", "figure_5.2.png",
            "figure_classical_colours.png", "frontier.png"} <= pictures
    assert page.count("data:image/png") == len(pictures)
    for said in ("bootstrap over 60 patches", "Slides are not known", "Holm", "measured on other data",
                 "its configuration names no store and split", "no Grad-CAM in its run folder"):
        assert said in text, said
    tables = compared.parent / "tables"
    assert {path.stem for path in tables.glob("*.csv")} == {path.stem for path in tables.glob("*.md")}
    assert "| MobileNet |" in (tables / "table_4.2.md").read_text(encoding="utf-8")


def test_the_same_runs_give_the_same_bytes(folders, tmp_path):
    pages = [write_comparison([folders["first"], folders["colours"]], tmp_path / name) for name in ("a", "b")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def damage(folder, kind):
    """Breaks one file of a run folder; gives what must be said of it."""
    if kind == "config":
        (folder / "config.json").write_text("{}")
        return "config.json: does not say which model this is"
    if kind == "evaluation":
        (folder / "evaluation" / "test.json").unlink()
        return "test.json: no such file; evaluate this run first"
    file = folder / ("record.json" if kind == "cost" else "evaluation/test.json")
    record = json.loads(file.read_text())
    if kind == "cost":
        record["cost"] = {"bytes": -1}
    else:
        record["assessment"]["intervals"].pop("auc")
    file.write_text(json.dumps(record))
    return "cost.bytes is -1.0" if kind == "cost" else "its assessment is not of this form (KeyError: 'auc')"


@pytest.mark.parametrize("kind", ["config", "evaluation", "cost", "assessment"])
def test_a_damaged_run_is_refused_by_name(tmp_path, kind):
    run = write_network(tmp_path / "run", "scratch1", scored(0, 1.0))
    said = damage(run, kind)
    with pytest.raises(InputError) as refused:
        write_comparison([run], tmp_path / "out")
    assert said in str(refused.value) and str(run) in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_run_or_given_twice_is_refused(folders, tmp_path):
    for runs, reference, said in (([], None, "no run to compare"), ([tmp_path], None, "not a run folder"),
                                  ([folders["first"]] * 2, None, "given twice"),
                                  ([folders["first"]], "second", "--reference=second: is none of the runs")):
        with pytest.raises(InputError, match=said):
            write_comparison(runs, tmp_path / "out", reference=reference)


def test_no_name_is_cut_off_or_laid_over_another():
    """Eighteen models of nearly one accuracy, with long names."""
    points = [Point(f"colour histogram + random forest {i}", "histogram", 1.0 + i, 90 + i / 100) for i in range(18)]
    figure = accuracy_against_cost([Panel("a", "b", points), Panel("c", "d", points[:1])], frontier=True)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
        assert len(boxes) in (18, 1)
        assert all(below.y1 <= above.y0 + 1 for below, above in zip(boxes, boxes[1:], strict=False))
        for box in boxes:
            assert 0 <= box.x0 and box.x1 <= figure.bbox.width and 0 <= box.y0 and box.y1 <= figure.bbox.height
