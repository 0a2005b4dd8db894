"""The jobs one after the other on a tiny network: what each prints, writes and leaves alone."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pcamjax.data.sources.synthetic import open_synthetic
from pcamjax.data.store import write_store
from pcamjax.inference.predictions import Predictions

ROOT = Path(__file__).resolve().parents[2]


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_each_job_ends_well_and_prints_where_its_output_lies(finished):
    root, ended = finished
    assert {name: job.code for name, job in ended.items()} == dict.fromkeys(ended, 0), ended
    for name, output in {"train": "report.html", "evaluate": "report.html", "predict": "predictions/test.csv",
                         "explain": "explanations/valid.npz"}.items():
        assert str(root / "run" / output) in ended[name].out, name
        assert (root / "run" / output).is_file(), name
        assert "split official: " in ended[name].out, name
    assert "images/s" in ended["train"].err, "no progress bar"


def test_training_leaves_a_run_folder(finished):
    run = finished[0] / "run"
    assert {file.name for file in run.iterdir()} == {
        "config.json", "data.json", "environment.json", "metrics.jsonl", "record.json", "report.html", "checkpoints",
        "tensorboard", "predictions", "evaluation", "explanations", "figures"}
    assert not list(run.rglob("*.tmp"))


def test_evaluation_scores_the_checkpoint_and_split_asked_for(finished):
    root, ended = finished
    predictions = Predictions.load(root / "run" / "predictions" / "valid.npz")
    record = json.loads((root / "run" / "evaluation" / "valid.json").read_text())
    assert predictions.meta["checkpoint"].startswith("best, step") and predictions.meta["role"] == "valid"
    assert record["predictions"] == predictions.meta and record["metrics"]["n"] == len(predictions) == 20
    accuracy = np.mean((predictions.scores > 0.5) == predictions.labels)
    assert record["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert f"{100 * accuracy:.2f}" in ended["evaluate"].out


def test_choices_come_from_the_validation_of_the_same_checkpoint_and_views(job, place):
    workdir = f"--workdir={place / 'run'}"

    def choices(*arguments):
        for part in ("valid", "train"):
            assert job("evaluate", workdir, f"--split={part}", *arguments).code == 0
            arguments = arguments[:1]  # the train part as the first says
        return json.loads((place / "run" / "evaluation" / "train.json").read_text())["assessment"]["choices"]

    assert choices("--checkpoint=last")["temperature"]["value"] > 0
    assert choices("--checkpoint=last", "--symmetries").startswith("none: evaluate the validation part")
    assert choices("--symmetries")["operating_points"][0]["rule"] == "Youden"
    predictions = Predictions.load(place / "run" / "predictions" / "train.npz")
    assert predictions.meta["averaged"] == "probability over the eight symmetries of the square"


def test_prediction_of_patches_with_and_without_labels(finished):
    root, _ = finished
    predictions = Predictions.load(root / "run" / "predictions" / "test.npz")
    assert predictions.labels.tolist() == [i % 2 for i in range(21)] + [-1] * 4
    with open(root / "run" / "predictions" / "test.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "score"] and [row[0] for row in rows[1:]] == [f"test_{i}" for i in range(25)]
    np.testing.assert_array_equal(np.array([row[1] for row in rows[1:]], np.float32), predictions.scores)


def test_the_page_tells_of_scores_and_maps(finished):
    page = (finished[0] / "run" / "report.html").read_text()
    assert "data:image/png" in page
    assert "evaluation/test.json: predicted, but not scored" in page


def test_a_store_that_moved_and_the_form_of_kaggle(job, place):
    (place / "store").rename(place / "moved")
    workdir = f"--workdir={place / 'run'}"
    assert job("predict", workdir, f"--config.data.path={place / 'store'}").code == 2
    ended = job("predict", workdir, f"--config.data.path={place / 'moved'}", "--kaggle",
                f"--output={place / 'submission.csv'}")
    assert ended.code == 0 and str(place / "submission.csv") in ended.out
    rows = (place / "submission.csv").read_text().splitlines()
    before = (place / "run" / "predictions" / "test.csv").read_text().splitlines()
    assert rows[0] == "id,label" and rows[1:] == before[1:]


def test_training_again_leaves_a_finished_run_as_it_is(job, place):
    shutil.copy(place / "run" / "metrics.jsonl", place / "kept")
    before = contents(place / "run")
    ended = job("train", f"--workdir={place / 'run'}", f"--config={place / 'config.py'}",
                f"--config.data.path={place / 'store'}")
    assert ended.code == 0 and "going on after step 12" in ended.out
    after = contents(place / "run")
    assert {file.relative_to(place): after.get(file) == data for file, data in before.items()} == {
        file.relative_to(place): True for file in after}


def test_heat_maps_of_another_checkpoint_do_not_use_its_predictions(job, place):
    scores = Predictions.load(place / "run" / "predictions" / "valid.npz")
    (place / "run" / "predictions" / "valid.npz").unlink()
    predictions = type(scores)(scores.ids, scores.slides, scores.labels, np.full(20, 0.125, np.float32), None,
                               scores.meta)
    predictions.save(place / "run" / "predictions" / "valid.npz")
    shown = {}
    for checkpoint in ("best", "last"):
        assert job("explain", f"--workdir={place / 'run'}", "--split=valid", f"--checkpoint={checkpoint}", "--num=4",
                   "--target=margin", "--layers=block2_conv2").code == 0
        with np.load(place / "run" / "explanations" / "valid.npz") as file:
            shown[checkpoint] = file["scores"]
            assert file["maps"].shape == (1, 4, 96, 96) and str(file["layer"]) == "block2_conv2"
    assert (shown["best"] == 0.125).all() and (shown["last"] != 0.125).all()


def test_several_methods_are_drawn_side_by_side(job, place):
    ended = job("explain", f"--workdir={place / 'run'}", "--split=valid", "--num=4",
                "--methods=layer_cam,input_gradient")
    assert ended.code == 0 and "LayerCAM: 4 maps" in ended.out and "input gradient: 4 maps" in ended.out
    with np.load(place / "run" / "explanations" / "valid.npz") as file:
        assert file["maps"].shape == (2, 4, 96, 96) and file["methods"].tolist() == ["layer_cam", "input_gradient"]
    records = json.loads((place / "run" / "explanations" / "valid.json").read_text())
    assert len(records) == 4 and set(records[0]["maps"]) == {"layer_cam", "input_gradient"}
    assert (place / "run" / "figures" / "heat_maps_valid_methods.png").is_file()


@pytest.mark.parametrize("synthetic", [False, True])
def test_methods_are_compared(job, place, synthetic):
    """By tumour masks where patches are synthetic, and where they are not by the centre alone."""
    more = ()
    if synthetic:
        write_store(open_synthetic({"train": 2, "valid": 12, "test": 2}, seed=3), place / "synthetic")
        more = (f"--config.data.path={place / 'synthetic'}", "--stages=2")
    ended = job("explain", f"--workdir={place / 'run'}", "--split=valid", "--compare", "--num=10", "--methods=grad_cam",
                *more)
    assert ended.code == 0, ended.err
    table = json.loads((place / "run" / "explanations" / "valid_comparison.json").read_text())
    rows = {(row["method"], row["weights"]): row for row in table["rows"] if row["group"] == "all"}
    assert {("chance", "none"), ("centre Gaussian", "none"), ("Grad-CAM", "trained"),
            ("Grad-CAM", "random")} <= set(rows)
    assert ("tumour energy" in rows["Grad-CAM", "trained"]["figures"]) == synthetic
    assert rows["Grad-CAM", "trained"]["maps_per_second"] > 0 and table["patches"] == 10
    assert [row["stage"] for row in table["cascade"].get("Grad-CAM", [])][1:] == (
        ["logits", "block1_conv1"] if synthetic else [])


def test_the_list_of_jobs_has_a_line_for_each():
    listed = subprocess.run([sys.executable, "-m", "experiments"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed.stdout.splitlines()
             if line.startswith("  ")}
    assert set(lines) == {"prepare", "train", "evaluate", "predict", "explain", "export", "summary", "benchmark",
                          "baselines", "compare", "reproduce", "scaling", "demo"}
    assert all(len(line.split()) > 4 for line in lines.values())
