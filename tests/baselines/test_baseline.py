"""A baseline in its folder: what it reads, what it writes, and what it is when it is opened again."""

import dataclasses

import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from configs import baselines
from pcamjax.baselines.baseline import fit_baseline
from pcamjax.baselines.histograms import colour_histograms
from pcamjax.errors import InputError
from pcamjax.files import read_json, write_json
from pcamjax.inference.predictions import Predictions
from pcamjax.training.run import RunFolder, data_identity


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    tiny.register()
    return tiny.write_noise(tmp_path_factory.mktemp("data") / "store")


def configured(**overrides) -> ConfigDict:
    """Settings that take no time: few bins, few trees."""
    config = baselines.get_config()
    config.features.bins = (2, 2, 2)
    config.grid = {"knn": {"n_neighbors": (3, 9)}, "svm": {"C": (1.0,)}, "forest": {"n_estimators": (5,)}}
    config.update_from_flattened_dict(overrides)
    return config


def contents(folder) -> dict:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def rows_read(monkeypatch) -> list[set[int]]:
    """The rows whose images were asked for, call by call."""
    rows = []

    def watched(images, indices, **options):
        rows.append(set(indices.tolist()))
        return colour_histograms(images, indices, **options)

    monkeypatch.setattr("pcamjax.baselines.baseline.colour_histograms", watched)
    return rows


@pytest.mark.parametrize("name", ["knn", "svm", "forest"])
def test_a_baseline_tells_the_bright_patches(patches, tmp_path, name):
    folder = RunFolder(tmp_path / "run")
    baseline = fit_baseline(configured(**{"model.name": name}), patches, tiny.split(patches), folder)
    predictions = baseline.predict(patches, tiny.split(patches), "valid")
    assert ((predictions.scores > 0.5) == predictions.labels).all() and predictions.logits is None
    assert predictions.ids.tolist() == [f"valid_{i}" for i in range(20)]
    assert predictions.meta | {"model": f"{name} on rgb histograms (2x2x2 bins)", "run": "run", "role": "valid",
                               "split": "official", "leaks_slides": False} == predictions.meta
    predictions.save(tmp_path / "valid.npz")
    np.testing.assert_array_equal(Predictions.load(tmp_path / "valid.npz").scores, predictions.scores)


def test_the_folder_is_a_runs(patches, tmp_path):
    config, split, folder = configured(), tiny.split(patches), RunFolder(tmp_path / "run")
    fit_baseline(config, patches, split, folder)
    assert {file.name for file in folder.path.iterdir()} == {"config.json", "data.json", "environment.json",
                                                             "record.json", "classifier.skops"}
    assert folder.data() == data_identity(patches, split)
    assert read_json(folder.path / "environment.json")["packages"]["scikit-learn"]
    record = folder.record()
    assert record["features"] == 8 and record["fitted_on"] == 48 and record["split"]["valid"] == 20
    assert [candidate["settings"]["n_neighbors"] for candidate in record["candidates"]] == [3, 9]
    assert record["chosen"] == record["candidates"][0] and record["chosen"]["valid_auc"] == 1
    cost, seconds = record["cost"], record["feature_seconds"]["train"] + record["chosen"]["fit_seconds"]
    assert cost["train_ms_per_image"] == pytest.approx(1000 * seconds / 48)
    assert cost["bytes"] == folder.classifier.stat().st_size and "cores of" in cost["device"]
    assert set(cost) - {"train_ms_per_image", "bytes", "device"} == {key for key in cost if cost[key] is None} == {
        "parameters", "flops_per_image", "energy_kwh", "co2_kg", "method", "region"}


def test_energy_is_that_of_the_features_and_of_the_settings_chosen(patches, tmp_path, monkeypatch):
    monkeypatch.setattr("pcamjax.baselines.baseline.Meter", tiny.CountingMeter)
    split, folder = tiny.split(patches), RunFolder(tmp_path / "run")
    baseline = fit_baseline(configured(**{"carbon.country": "FRA"}), patches, split, folder)
    cost = folder.record()["cost"]
    assert (cost["energy_kwh"], cost["co2_kg"], cost["region"]) == (2, 20, "FRA")
    _, cost = baseline.measured_predictions(patches, split, "valid", tiny.CountingMeter("FRA"))
    assert cost == {"test_ms_per_image": 50, "images": 20, "energy_kwh": 1, "co2_kg": 10, "method": "counting",
                    "region": "FRA"}


def test_a_finished_baseline_is_opened_not_fitted(patches, tmp_path, monkeypatch):
    split, folder = tiny.split(patches), RunFolder(tmp_path / "run")
    first = fit_baseline(configured(), patches, split, folder).predict(patches, split, "valid")
    before = contents(folder.path)
    monkeypatch.setattr("pcamjax.baselines.baseline.choose", None)
    again = fit_baseline(configured(), patches, split, folder).predict(patches, split, "valid")
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.meta == first.meta and contents(folder.path) == before


def test_nothing_is_read_but_what_trains_and_validates(patches, tmp_path, rows_read):
    split = tiny.split(patches)
    fit_baseline(configured(), patches, split, RunFolder(tmp_path / "run"))
    first, train, valid = rows_read
    assert first < train == set(split.part("train").tolist()) and valid == set(split.part("valid").tolist())


def test_max_train_draws_patches_by_the_seed(patches, tmp_path, rows_read):
    split = tiny.split(patches)
    for number, seed in enumerate((0, 0, 1)):
        folder = RunFolder(tmp_path / str(number))
        fit_baseline(configured(max_train=20, seed=seed), patches, split, folder)
        assert folder.record()["fitted_on"] == 20
    first, again, other = rows_read[1::3]
    assert len(first) == len(other) == 20 and first == again != other
    assert first | other <= set(split.part("train").tolist())


def test_a_networks_features_go_by_its_variables(patches, tmp_path):
    split, folder = tiny.split(patches), RunFolder(tmp_path / "run")

    def fit(network):
        return fit_baseline(configured(**{"features.name": "network", "features.run": str(network)}), patches, split,
                            folder)

    network, other = (tiny.untrained_run(tmp_path / f"network{seed}", patches.path, seed=seed) for seed in (0, 1))
    with pytest.raises(InputError, match="network0: was trained on another store or split, so it may have seen what"):
        fit(network)
    assert not folder.path.exists()
    for path in (network, other):
        write_json(path / "data.json", data_identity(patches, split))
    baseline = fit(network)
    assert baseline.record["features"] == 8 and baseline.record["model"] == "knn on features of tiny (last, step 0)"
    scores = baseline.predict(patches, split, "valid").scores
    again = fit(network.rename(tmp_path / "moved")).predict(patches, split, "valid").scores
    np.testing.assert_array_equal(again, scores)
    with pytest.raises(InputError, match="data.json: this folder holds a run on another network; choose"):
        fit(other)


@pytest.mark.parametrize(("overrides", "said"), [
    ({"model.name": "trees"}, "config.model.name = 'trees': choose one of knn, svm, forest"),
    ({"features.name": "colours"}, "config.features.name = 'colours': choose one of histogram, network"),
    ({"features.checkpoint": "first"}, "config.features.checkpoint = 'first': choose one of last, best"),
    ({"features.name": "network"}, "config.features.run is empty; name the folder of a trained run"),
    ({"features.name": "network", "features.run": "none"}, "none: no run .no config.json."),
    ({"features.space": "lab"}, "config.features.space = 'lab': choose one of rgb, hsv, stain"),
    ({"max_train": -1}, "config.max_train = -1: expected at least 0"),
    ({"max_train": 1}, "the 1 patches of train all have one label"),
    ({"seed": -1}, "config.seed = -1: expected at least 0"),
])
def test_what_is_refused_leaves_no_folder(patches, tmp_path, overrides, said):
    with pytest.raises(InputError, match=said):
        fit_baseline(configured(**overrides), patches, tiny.split(patches), RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_another_configuration_or_network_is_refused(patches, tmp_path):
    split, folder = tiny.split(patches), RunFolder(tmp_path / "run")
    fit_baseline(configured(), patches, split, folder)
    with pytest.raises(InputError, match="this folder holds a run with features.space = 'rgb', asked for is 'hsv'"):
        fit_baseline(configured(**{"features.space": "hsv"}), patches, split, folder)
    with pytest.raises(InputError, match="this folder holds a run on another split; choose"):
        fit_baseline(configured(), patches, dataclasses.replace(split, indices={
            **split.indices, "train": split.part("train")[1:]}), folder)
