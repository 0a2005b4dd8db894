"""The report of a run: one file, true to the run folder, and open about what is not in it."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pcamjax.errors import InputError
from pcamjax.evaluation.assessment import assess
from pcamjax.evaluation.metrics import evaluation_record
from pcamjax.files import write_json
from pcamjax.inference.predictions import Predictions
from pcamjax.report.page import write_report

CONFIG = {"model": {"name": "scratch1"}, "data": {"path": "<script>alert(1)</script>"}, "epochs": 2}


def predictions(split: str, leaks: bool | None, labels: list[int], scores: list[float]) -> Predictions:
    ids = np.array([f"{split}_{i}" for i in range(len(labels))])
    meta = {"split_description": "slides kept whole", "leaks_slides": leaks, "checkpoint": "last"}
    labels, scores = np.array(labels, np.int8), np.array(scores, np.float32)
    return Predictions(ids, np.full(len(ids), ""), labels, scores, None, meta)


def add_split(run: Path, made: Predictions, split: str) -> None:
    made.save(run / "predictions" / f"{split}.npz")
    write_json(run / "evaluation" / f"{split}.json", evaluation_record(made))


def add_explanations(run: Path, **changes) -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((5, 96, 96)).astype(np.float32)
    maps[1] = 0
    arrays = {"images": rng.integers(0, 256, (5, 96, 96, 3), dtype=np.uint8), "maps": maps[None],
              "peaks": np.array([[1, 0, 1, 1, 1]], np.float32), "methods": np.array(["grad_cam"]),
              "ids": np.array(list("abcde")),
              "labels": np.array([1, 1, 0, 0, -1], np.int8),
              "scores": np.array([0.9, 0.5, 0.8, 0.1, 0.2], np.float32),
              "layer": np.array("block3_conv2"), "target": np.array("metastasis"),
              "checkpoint": np.array("last, step 7")}
    (run / "explanations").mkdir(exist_ok=True)
    np.savez(run / "explanations" / "test.npz", **arrays | changes)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with two epochs, a record and one evaluated split."""
    run = tmp_path / "my run"
    write_json(run / "config.json", CONFIG)
    command = ["python", "-m", "experiments.train", "--config.data.path=a b"]
    write_json(run / "environment.json", {"command": command, "packages": {"jax": "0.10.2"}})
    write_json(run / "record.json", {
        "model": "scratch1", "parameters": {"total": 4549538, "trainable": 4548642},
        "steps": 500, "epochs": 2, "ended": "finished", "train_seconds": 90.0, "images_per_second": 177.7,
        "split": {"name": "by_slide", "description": "slides kept whole", "leaks_slides": False,
                  "train": 8000, "valid": 2000},
        "best": {"metric": "valid_auc", "epoch": 2, "value": 0.875}})
    (run / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 0.7, "valid_loss": null}\n'
                                       '{"epoch": 2, "train_loss": 0.6, "valid_loss": 0.5}\n{"epoch": 3,')
    add_split(run, predictions("test", False, [1, 1, 1, 0], [0.9, 0.8, 0.2, 0.1]), "test")
    return run


def text_of(page: Path) -> str:
    """What a reader sees, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.read_text().split("</style>")[1]))


def test_the_whole_report(run):
    """All of it is there, and in one file: no script, no request, every value escaped."""
    add_explanations(run)
    page = write_report(run)
    assert page == run / "report.html"
    text = text_of(page)
    for words in ("my run", "1.0000 AUC", "75.00 accuracy, %", "66.67 recall (sensitivity), %",
                  "On the 4 patches of “test”. Slides shared with training: no.",
                  "4,549,538, of which 4,548,642", "8,000 train, 2,000 valid",
                  "by_slide: slides kept whole", "2, with valid_auc 0.875", "1.5 minutes, 178 images/s",
                  "test 4 3 75.00 100.00 66.67 80.00 100.00 1.0000", "Checkpoint: last",
                  "true positives (metastasis, called metastasis)", "false negatives", "false positives",
                  "true negatives", "unlabelled, called healthy", "packages.jax 0.10.2",
                  "model.name scratch1",
                  "python -m experiments.train &#39;--config.data.path=a b&#39;"):
        assert words in text, words
    for words in ("Slides leak", "Not in this run folder", "not recorded"):
        assert words not in text, words
    html = page.read_text()
    assert not re.search(r"https?:|<script|<link|<iframe|javascript:|@import|url\(| on\w+=", html)
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', html)
    assert len(sources) == 10 and set(sources) == {"data:image/png;base64,"}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert all(alternative for alternative in re.findall(r'alt="([^"]*)"', html))
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"learning_curves.png", "roc_test.png", "confusion_test.png"} < figures
    assert len(figures) == 10 and sum(name.startswith("heat_maps_test_") for name in figures) == 5


def test_what_a_run_cost(run):
    record, evaluation = (json.loads((run / name).read_text()) for name in ("record.json", "evaluation/test.json"))
    energy = {"energy_kwh": 0.0123, "co2_kg": 0.00069, "method": "CPU measured by RAPL", "region": "FRA"}
    record["cost"] = {"train_ms_per_image": 126.1, "parameters": 4549538, "bytes": 18_200_000,
                      "flops_per_image": 1.0795e9, "device": "2 cores of X", **energy}
    evaluation["cost"] = {"test_ms_per_image": 0.581, "images": 4, **dict.fromkeys(energy)}
    write_json(run / "record.json", record)
    write_json(run / "evaluation" / "test.json", evaluation)
    text = text_of(write_report(run))
    for words in ("126.10 ms for each training patch, on 2 cores of X; 0.0123 kWh, 0.69 g of CO2 by the electricity of "
                  "FRA (CPU measured by RAPL)", "18.20 MB on disk to predict with, 1.079 GFLOPs for an image",
                  "0.58 ms an image, compilation left out; energy and CO2: not measured"):
        assert words in text, words


def test_what_the_figures_are_worth(run):
    made = predictions("test", False, [1, 1, 0, 0, 1], [0.9, 0.4, 0.2, 0.6, 0.8])
    valid = dataclasses.replace(made, meta=made.meta | {"role": "valid"})
    made = dataclasses.replace(made, meta=made.meta | {"role": "test"})
    made.save(run / "predictions" / "test.npz")
    assessment = assess(made, valid, samples=50)
    write_json(run / "evaluation" / "test.json", evaluation_record(made) | {"assessment": assessment})
    text = text_of(write_report(run))
    auc = assessment["intervals"]["auc"]
    for words in (assessment["resampling"], f"auc {auc['value']:.4f} [{auc['low']:.4f}, {auc['high']:.4f}]",
                  f"temperature {assessment['choices']['temperature']['value']:.3f}",
                  "Youden: score &gt; 0.7000 recall"):
        assert words in text, words
    write_json(run / "evaluation" / "test.json", evaluation_record(made) | {"assessment": {"intervals": 1}})
    with pytest.raises(InputError, match="test.json: its assessment is not of this form"):
        write_report(run)


@pytest.mark.parametrize(("leaks", "word"), [(True, "yes"), (None, "not known")])
def test_a_leak_is_announced(run, leaks, word):
    add_split(run, predictions("test", leaks, [1, 0], [0.9, 0.1]), "test")
    text = text_of(write_report(run))
    assert ("Slides leak across this split" in text) == bool(leaks)
    assert text.count(f"Slides shared with training: {word}.") == 2


def test_a_leak_is_announced_before_any_evaluation(run):
    (run / "evaluation" / "test.json").unlink()
    record = json.loads((run / "record.json").read_text())
    record["split"]["leaks_slides"] = True
    write_json(run / "record.json", record)
    text = text_of(write_report(run))
    assert "Slides leak across this split" in text
    assert "evaluation/test.json: predicted, but not scored" in text


def test_a_folder_with_a_configuration_alone(tmp_path):
    write_json(tmp_path / "config.json", CONFIG)
    text = text_of(write_report(tmp_path))
    for words in ("Not in this run folder yet", "environment.json", "record.json", "metrics.jsonl",
                  "python -m experiments.evaluate", "python -m experiments.explain",
                  "The command was not recorded"):
        assert words in text, words


def test_a_metric_that_is_not_defined_is_a_dash(run):
    add_split(run, predictions("valid", False, [0, 0], [0.1, 0.2]), "valid")
    text = text_of(write_report(run))
    assert "valid 2 0 100.00 – – – 100.00 –" in text
    assert not (run / "figures" / "roc_valid.png").exists()


def test_test_comes_first_and_then_valid(run):
    for split in ("train", "valid"):
        add_split(run, predictions(split, False, [0, 1], [0.1, 0.2]), split)
    html = write_report(run).read_text()
    assert re.findall(r'<th scope="row">(\w+)</th><td>\d+</td><td>', html) == ["test", "valid", "train"]


def test_an_epoch_run_twice_counts_once(run):
    with open(run / "metrics.jsonl", "w") as file:
        file.write('{"epoch": 1, "train_loss": 9}\n{"epoch": 1, "train_loss": 0.7, "valid_auc": NaN}\n')
    (run / "record.json").unlink()
    assert "epochs so far 1" in text_of(write_report(run))


@pytest.mark.parametrize(("damage", "message"), [
    (lambda run: (run / "config.json").unlink(), "my run: not a run folder"),
    (lambda run: (run / "record.json").write_text("{"), "record.json: not readable as JSON"),
    (lambda run: (run / "record.json").write_text("[]"), "record.json: holds a list"),
    (lambda run: (run / "record.json").write_text('{"split": 3}'), "record.json: not the record"),
    (lambda run: (run / "metrics.jsonl").write_text("[1]\n"), "metrics.jsonl: a line is not an epoch"),
    (lambda run: (run / "metrics.jsonl").write_text('{"epoch": "b"}\n'), "metrics.jsonl: a line is not"),
    (lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\n"), "metrics.jsonl: a line is not"),
    (lambda run: (run / "metrics.jsonl").write_text("[" * 100_000 + "\n"), "metrics.jsonl: a line is not"),
    (lambda run: (run / "predictions" / "test.npz").unlink(), "test.npz: no such file"),
    (lambda run: predictions("test", True, [1, 0], [1, 0]).save(run / "predictions" / "test.npz"),
     "test.json: does not belong to predictions/test.npz"),
    (lambda run: add_explanations(run, maps=np.ones((1, 5, 48, 48), np.float32)), r"maps is float32 \[1, 5, 48"),
    (lambda run: add_explanations(run, maps=np.full((1, 5, 96, 96), 2, np.float32)), r"outside \[0, 1\]"),
    (lambda run: add_explanations(run, labels=np.zeros(4, np.int8)), r"labels is int8 \[4\], expected i1"),
    (lambda run: add_explanations(run, extra=np.zeros(1)), "expected images, maps"),
])
def test_damage_is_named_and_the_old_report_stays(run, damage, message):
    (run / "report.html").write_text("old")
    damage(run)
    with pytest.raises(InputError, match=message) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert (run / "report.html").read_text() == "old"
