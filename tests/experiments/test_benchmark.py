"""The benchmark as a user runs it, on the smallest network there is."""

import json

import pytest

from pcamjax.benchmark.subjects import SUBJECTS

NAME = "mobilenet_004"
QUICK = (f"--networks={NAME}", "--batch_sizes=2", "--steps=1", "--rounds=1")


@pytest.mark.parametrize(("flags", "said"), [
    (["--networks="], "expected at least one of each"),
    (["--networks=mobilenet_025,foo"], "network 'foo' is not known"),
    (["--frozen=foo", f"--networks={NAME}"], "has no layer 'foo'"),
    (["--subjects=pcamjax,mxnet"], "--subjects=pcamjax,mxnet: 'mxnet' is not known; choose of pcamjax, keras_tens"),
    (["--tasks=infer,input"], "are measured beside train"),
    (["--tasks="], "'' is not known; choose of train"),
    (["--precisions=float8"], "choose of float32, bfloat16"),
    (["--batch_sizes=32,0"], "expected whole numbers of at least 1"),
    (["--config.batch_size=0"], "expected whole numbers of at least 1"),
    (["--batch_sizes=9", "--device_counts=1,2"], "9 does not divide among 2 devices"),
    (["--config.data.path=/nowhere"], "/nowhere")])
def test_what_cannot_be_measured_is_refused_at_once(job, monkeypatch, flags, said):
    monkeypatch.setattr("experiments.benchmark.Session", None)  # to begin would fail otherwise
    assert said in job("benchmark", *flags).refusal()


def test_an_output_that_cannot_be_written_is_refused_at_once(job, monkeypatch, tmp_path):
    monkeypatch.setattr("experiments.benchmark.Session.measure", None)
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in job("benchmark", *QUICK, f"--output={tmp_path / 'file'}").refusal()


def test_a_step_beside_the_machine(job, tmp_path):
    ended = job("benchmark", *QUICK, "--subjects=pcamjax", "--tasks=train", f"--output={tmp_path}")
    assert ended.code == 0, ended
    whole = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {(row["subject"], row["task"]): row for row in whole["rows"]}
    assert rows.keys() == {("pcamjax", "train"), ("machine", "product"), ("machine", "bandwidth")}
    assert not any(row["reason"] for row in rows.values()), rows
    step = rows["pcamjax", "train"]
    assert step["seconds"] > 0 and step["compile_seconds"] > 0 and step["peak_bytes"] > 2**26
    assert step["flops"] > 0 and 0 < step["share_of_product"] < 1
    assert whole["environment"]["packages"]["jax"] and whole["rounds"] == 1
    assert (tmp_path / "benchmark.md").read_text() in ended.out and (tmp_path / "roofline.png").exists()


@pytest.mark.exhaustive
def test_everything_that_can_be_measured(job, tmp_path):
    pytest.importorskip("keras"), pytest.importorskip("torch"), pytest.importorskip("tensorflow")
    subjects = [name for name in SUBJECTS if name != "machine"]
    ended = job("benchmark", *QUICK, "--device_counts=1,2", "--frozen=thesis,none", f"--output={tmp_path}",
                f"--subjects={','.join(subjects)}")
    assert ended.code == 0, ended
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert not any(row["reason"] for row in rows), [row for row in rows if row["reason"]]
    count = {task: sum(row["task"] == task for row in rows) for task in ("train", "infer", "grad_cam", "augment")}
    assert count == {"train": 14, "infer": 14, "grad_cam": 2, "augment": 1}
    assert {row["subject"] for row in rows if row["task"] == "train" and row["devices"] == 1} == set(subjects)
    trained = {row["frozen"]: row["flops"] for row in rows if row["subject"] == "torch" and row["task"] == "train"}
    assert trained["none"] > trained["thesis"]
