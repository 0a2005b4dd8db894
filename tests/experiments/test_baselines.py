"""The job of the classical models: a folder like a run's, whose files evaluation and report read."""

import json
from pathlib import Path

import numpy as np
import pytest

from pcamjax.evaluation.metrics import read_evaluation
from pcamjax.inference.predictions import Predictions

CONFIG = f"--config={Path(__file__).resolve().parents[2] / 'configs' / 'baselines.py'}"
FEW = ("--split=valid", "--config.features.bins=(2, 2, 2)", "--config.grid.knn.n_neighbors=(3, 9)")


def files(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def untimed(folder):
    """The files of a run without the page, and what its evaluations say but for their cost."""
    evaluations = {file: json.loads(content) for file, content in files(folder).items()
                   if file.parent.name == "evaluation"}
    costs = [evaluation.pop("cost") for evaluation in evaluations.values()]
    assert costs and all(cost["test_ms_per_image"] > 0 for cost in costs)
    return {file: content for file, content in files(folder).items() if file.name != "report.html"} | evaluations


@pytest.fixture(scope="module")
def root(finished):
    return finished[0]


@pytest.fixture(scope="module")
def fitted(job, root, tmp_path_factory):
    """The folders of a baseline on colours and of one on the network's features, and how their jobs ended."""
    folder = tmp_path_factory.mktemp("baselines")
    data = f"--config.data.path={root / 'store'}"
    return folder, {
        "colours": job("baselines", CONFIG, f"--workdir={folder / 'colours'}", data, *FEW),
        "network": job("baselines", CONFIG, f"--workdir={folder / 'network'}", data, *FEW,
                       "--config.features.name=network", f"--config.features.run={root / 'run'}")}


@pytest.mark.parametrize(("name", "model"), [
    ("colours", "knn on rgb histograms (2x2x2 bins)"), ("network", "knn on features of tiny (last, step 12)")])
def test_the_job_leaves_predictions_metrics_and_a_page(fitted, name, model):
    folder, ended = fitted
    assert ended[name].code == 0, ended[name]
    run = folder / name
    predictions = Predictions.load(run / "predictions" / "valid.npz")
    metrics, meta = read_evaluation(run / "evaluation" / "valid.json")
    assert meta == predictions.meta and meta["model"] == model and metrics.n == 20
    accuracy = np.mean((predictions.scores > 0.5) == predictions.labels)
    assert metrics.accuracy == accuracy and f"{100 * accuracy:.2f}" in ended[name].out
    page = (run / "report.html").read_text()
    chosen = json.loads((run / "record.json").read_text())["chosen"]["settings"]["n_neighbors"]
    for text in (model, f"n_neighbors = {chosen}", "ms an image", "data:image/png", "48 patches, 8 features each"):
        assert text in page, text
    assert "heat maps: make them" not in page and "no epoch has ended" not in page
    assert str(run / "report.html") in ended[name].out and "split official: " in ended[name].out


def test_the_job_again_changes_no_figure(job, root, fitted):
    run = fitted[0] / "colours"
    before = untimed(run)
    assert job("baselines", CONFIG, f"--workdir={run}", f"--config.data.path={root / 'store'}", *FEW).code == 0
    assert untimed(run) == before


def test_what_is_refused(job, root, fitted):
    run, data = fitted[0] / "colours", f"--config.data.path={root / 'store'}"
    before = files(fitted[0])
    for said, arguments in (
            ("4 of 25 patches have no label", (f"--workdir={fitted[0] / 'new'}", data)),
            ("config.model.name = 'tree': choose one of knn, svm, forest", (
                f"--workdir={fitted[0] / 'new'}", data, "--split=valid", "--config.model.name=tree")),
            ("configs/baselines.py has no such key; the closest are features.bins", (
                f"--workdir={fitted[0] / 'new'}", data, "--config.features.bin=3")),
            ("this folder holds a run with seed = 0, asked for is 3", (f"--workdir={run}", data, *FEW,
                                                                       "--config.seed=3")),
            ("config.json: does not say features.", (f"--workdir={root / 'run'}", data, *FEW))):
        assert said in job("baselines", CONFIG, *arguments).refusal()
    for name in ("evaluate", "predict", "explain"):
        assert f"{run}: holds a baseline, which has no network" in job(name, f"--workdir={run}").refusal()
    assert files(fitted[0]) == before
