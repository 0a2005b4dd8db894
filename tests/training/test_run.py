"""The folder of a run: claimed by one configuration, its environment told once."""

import json
import subprocess
from importlib.metadata import version

import jax
import pytest
from ml_collections import ConfigDict

from configs import default
from pcamjax.errors import InputError
from pcamjax.training.run import RunFolder, environment, flatten, require_same

DATA = {"store_sha256": "of the store", "split_sha256": "of the split"}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.claim(default.get_config(), DATA)
    return folder


def contents(folder: RunFolder) -> dict:
    return {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}


def test_a_new_folder_gets_the_configuration_and_the_environment(folder):
    assert {file.name for file in folder.path.iterdir()} == {"config.json", "data.json", "environment.json"}
    assert flatten(folder.config().to_dict()) == flatten(json.loads(json.dumps(default.get_config().to_dict())))
    told = json.loads((folder.path / "environment.json").read_text())
    assert told["packages"]["jax"] == version("jax") and told["devices"]["count"] == 4
    assert told["command"][0] == "python"


def test_the_environment_tells_what_numbers_hang_on(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("HOME_OF_SECRETS", "no business of a run's")
    with jax.default_matmul_precision("highest"):
        told = environment()
    assert {"pcamjax", "jaxlib", "flax", "optax", "numpy", "scipy"} <= set(told["packages"])
    assert told["variables"]["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=true"
    assert told["variables"]["NVIDIA_TF32_OVERRIDE"] == "0" and "HOME_OF_SECRETS" not in told["variables"]
    assert told["options"]["jax_default_matmul_precision"] == "highest"
    assert told["devices"]["platform"] == "cpu" and told["devices"]["runtime"] and told["cpu_kernels"]


@pytest.mark.parametrize("change", [None, "changed", "added"])
def test_the_environment_tells_the_commit_and_whether_the_tree_was_clean(tmp_path, monkeypatch, change):
    module = tmp_path / "run.py"
    module.write_text("")

    def git(*words):
        return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
                              capture_output=True, text=True).stdout.strip()
    git("init"), git("add", "."), git("commit", "-m", "a")
    if change:
        (tmp_path / {"changed": "run.py", "added": "new.py"}[change]).write_text("changed")
    monkeypatch.setattr("pcamjax.training.run.__file__", str(module))
    assert environment()["git"] == {"commit": git("rev-parse", "HEAD"), "clean": change is None}


def test_the_same_configuration_goes_on_and_changes_nothing(folder, monkeypatch):
    before = contents(folder)
    monkeypatch.setattr("sys.orig_argv", ["python", "another command"])
    again = default.get_config()
    again.data.path, again.parallel.devices, again.input.where = "/moved", 2, "device"
    folder.claim(again, DATA)
    assert contents(folder) == before


@pytest.mark.parametrize(("key", "value", "said"), [
    ("optimizer.schedule.learning_rate", 0.5, "optimizer.schedule.learning_rate = 0.001, asked for is 0.5"),
    ("data.split.name", "by_slide", "data.split.name = 'official', asked for is 'by_slide'"),
    ("loss.class_weights", (1.0, 2.0), r"loss.class_weights = \[1.0, 1.0\], asked for is \[1.0, 2.0\]"),
])
def test_another_configuration_is_refused(folder, key, value, said):
    before, other = contents(folder), default.get_config()
    other.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=f"config.json: this folder holds a run with {said}; choose another workdir"):
        folder.claim(other, DATA)
    assert contents(folder) == before


def test_other_data_are_refused(folder):
    before = contents(folder)
    with pytest.raises(InputError, match="data.json: this folder holds a run on another store; choose"):
        folder.claim(default.get_config(), DATA | {"store_sha256": "of another"})
    assert contents(folder) == before


def test_a_key_that_only_one_has_counts(tmp_path):
    with pytest.raises(InputError, match="does not say a.c, so an older pcamjax has written it.*another workdir"):
        require_same(ConfigDict({"a": {"b": 1}}), ConfigDict({"a": {"b": 1, "c": 2}}), tmp_path)
    with pytest.raises(InputError, match="a.c = 2, asked for is None"):
        require_same(ConfigDict({"a": {"b": 1, "c": 2}}), ConfigDict({"a": {"b": 1}}), tmp_path)


def test_where_things_lie_need_not_be_said(tmp_path):
    require_same(ConfigDict({"a": 1}), ConfigDict({"a": 1, "input": {"where": "host"}}), tmp_path)


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and no run's folder"):
        RunFolder(tmp_path).claim(default.get_config(), DATA)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_killed_start_has_left_is_no_obstacle(tmp_path):
    for name in ("data.json", ".training.lock", ".config.json.0123abcd.tmp"):
        (tmp_path / name).write_text("half")
    folder = RunFolder(tmp_path)
    with folder.lock("training"):
        folder.claim(default.get_config(), DATA)
    assert folder.data() == DATA
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "data.json", "environment.json"}


@pytest.mark.parametrize(("work", "left"), [("training", ".metrics.jsonl.0123abcd.tmp"),
                                            ("results", "predictions/.test.npz.0123abcd.tmp")])
def test_each_work_is_locked_apart_and_clears_away_its_own(folder, work, left):
    others = ".record.json.0123abcd.tmp" if work == "results" else "predictions/.valid.npz.0123abcd.tmp"
    (folder.path / "predictions").mkdir()
    for name in (left, others, ".report.html.0123abcd.tmp"):
        (folder.path / name).write_text("half")
    with folder.lock(work):
        with pytest.raises(InputError, match=f"run: process .* .{work} since .* is at work there; wait for its end"):
            with RunFolder(folder.path).lock(work):
                pass
        assert not (folder.path / left).exists()
        assert (folder.path / others).exists() and (folder.path / ".report.html.0123abcd.tmp").exists()
        with folder.lock("results" if work == "training" else "training"):
            pass


def test_an_empty_folder_is_taken(tmp_path):
    RunFolder(tmp_path).claim(default.get_config(), DATA)
    assert RunFolder(tmp_path).config().model.name == "scratch1"


def test_the_record_comes_back(folder):
    assert folder.record() is None
    folder.write_record({"model": "scratch1", "best": {"value": float("nan")}})
    assert folder.record() == {"model": "scratch1", "best": {"value": None}}


def test_the_environment_is_json():
    assert json.loads(json.dumps(environment())) == environment()
