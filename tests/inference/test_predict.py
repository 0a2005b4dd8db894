"""Scores of a run: sigmoid(z1 - z0), each patch once, whatever the devices."""

import jaxtyping
import numpy as np
import pytest
import tiny

from pcamjax.data.splits import Split
from pcamjax.errors import InputError
from pcamjax.inference.predict import load_run, predict, predict_split, scores
from pcamjax.training.run import RunFolder


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    tiny.register()
    return tiny.write_noise(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def path(patches, tmp_path_factory):
    return tiny.untrained_run(tmp_path_factory.mktemp("runs") / "run", patches.path)


@pytest.fixture(scope="module")
def reference(path, patches):
    """21 patches, one at a time, straight through the network."""
    run = load_run(path)
    rows = tiny.split(patches).indices["test"][:21]
    return np.concatenate([run.network.apply(run.variables, run.preprocess(patches.images[row:row + 1]))
                           for row in rows])


def predict_21(path, patches, devices: int, wrapper: str):
    config = RunFolder(path).config()
    config.parallel = {"devices": devices, "wrapper": wrapper}
    split = Split("official", {"test": tiny.split(patches).indices["test"][:21]}, None, "")
    return predict_split(load_run(path, "last", config), patches, split, "test")


@pytest.mark.parametrize("wrapper", ["shard_map", "pmap"])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_each_patch_counts_once_on_any_number_of_devices(path, patches, reference, devices, wrapper):
    predictions = predict_21(path, patches, devices, wrapper)
    np.testing.assert_allclose(predictions.logits, reference, rtol=1e-5, atol=1e-6)
    assert predictions.ids.tolist() == [f"test_{i}" for i in range(21)]


def test_a_run_is_evaluated_in_its_own_precision(path, patches, reference):
    config = RunFolder(path).config()
    config.model.precision = "bfloat16"
    images = patches.images[tiny.split(patches).indices["test"][:8]]
    expected = scores(reference[:8])
    narrow = predict(load_run(path, config=config), images, batch_size=8)
    np.testing.assert_allclose(narrow, expected, atol=0.01)
    assert np.abs(narrow - expected).max() > 1e-5
    del config.model["precision"]  # a run of before there was a choice
    np.testing.assert_allclose(predict(load_run(path, config=config), images, batch_size=8), expected, rtol=1e-5)


def test_predictions_say_where_they_come_from(path, patches):
    split = tiny.split(patches)
    predictions = predict_split(load_run(path), patches, split, "valid")
    assert predictions.meta == {
        "model": "tiny", "run": "run", "checkpoint": "last, step 0", "role": "valid", "split": "official",
        "split_description": split.description, "leaks_slides": split.leaks_slides, "store_sha256": patches.sha256}
    assert predictions.labels.tolist() == [i % 2 for i in range(20)]
    assert predictions.slides.tolist() == [f"slide_valid_{i % 3}" for i in range(20)]


def test_a_part_that_is_not_there(path, patches):
    split = Split("official", {"train": np.arange(4)}, None, "")
    with pytest.raises(InputError, match="no part 'test', only train"):
        predict_split(load_run(path), patches, split, "test")


def test_scores_are_the_sigmoid_of_the_difference_for_any_logits():
    logits = np.array([[0, 0], [1, 3], [3, 1], [-200, 200], [200, -200], [1e30, 1e30]], np.float32)
    np.testing.assert_allclose(scores(logits), [0.5, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2)), 1, 0, 0.5], rtol=1e-6)


def test_a_library_user_gets_the_scores_of_images_in_memory(path, patches, reference):
    images = np.array(patches.images[tiny.split(patches).indices["test"][:21]])
    got = predict(load_run(path), images, batch_size=8)
    assert got.dtype == np.float32 and ((got >= 0) & (got <= 1)).all()
    np.testing.assert_allclose(got, 1 / (1 + np.exp(reference[:, 0] - reference[:, 1])), rtol=1e-5)
    np.testing.assert_allclose(predict(load_run(path), images[:1], batch_size=8), got[:1], rtol=1e-5)


@pytest.mark.parametrize("images", [np.zeros((2, 96, 96, 3), np.float32), np.zeros((2, 96, 96, 4), np.uint8),
                                    np.zeros((96, 96, 3), np.uint8), np.zeros((0, 96, 96, 3), np.uint8)])
def test_images_of_another_kind_are_refused(path, images):
    run = load_run(path)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(InputError, match=r"images are .* \[.*\]; expected uint8 \[n, 96, 96, 3\]"):
            predict(run, images)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_run_is_loaded_from_the_checkpoint_asked_for(path, tmp_path):
    with pytest.raises(InputError, match="best: no checkpoint"):
        load_run(path, "best")
    with pytest.raises(InputError, match="no run .no config.json."):
        load_run(tmp_path)
    assert not list(tmp_path.iterdir())
    run = load_run(path)
    assert run.config.model.name == "tiny" and run.checkpoint == "last, step 0" and run.folder.path == path
