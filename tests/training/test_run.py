"""The folder of a run: claimed by one configuration, its environment told once."""

import json
from importlib.metadata import version

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


def test_an_empty_folder_is_taken(tmp_path):
    RunFolder(tmp_path).claim(default.get_config(), DATA)
    assert RunFolder(tmp_path).config().model.name == "scratch1"


def test_the_record_comes_back(folder):
    assert folder.record() is None
    folder.write_record({"model": "scratch1", "best": {"value": float("nan")}})
    assert folder.record() == {"model": "scratch1", "best": {"value": None}}


def test_the_environment_is_json():
    assert json.loads(json.dumps(environment())) == environment()
