import copy
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.inference.predict import load_run
from pcamjax.inference.recalibration import recalibrate


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tiny.register()
    folder = tmp_path_factory.mktemp("runs") / "run"
    return load_run(tiny.untrained_run(folder, Path("unused"), **{"model.frozen": "none"}))


IMAGES = np.random.default_rng(0).integers(0, 255, (300, 96, 96, 3), np.uint8)


def test_the_first_layer_gets_the_moments_of_its_input(run):
    mended = recalibrate(run, IMAGES, np.arange(300), 128)
    rows = np.sort(np.random.default_rng(run.config.seed).choice(300, 128, replace=False))
    layer = run.variables["params"]["backbone"]["block1_conv1"]
    x = jax.lax.conv_general_dilated(run.preprocess(IMAGES[rows]), layer["kernel"], (1, 1), "VALID",
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = np.maximum(np.asarray(x) + np.asarray(layer["bias"]), 0)
    statistics = mended.variables["batch_stats"]["backbone"]["block1_bn1"]
    np.testing.assert_allclose(statistics["mean"], x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(statistics["var"], x.var((0, 1, 2)), rtol=1e-2)


def test_nothing_is_dropped_and_nothing_else_changes(run):
    # With dropout a key would be needed, and the second block's moments would be wider.
    once, again = (recalibrate(run, IMAGES, np.arange(300), 256) for _ in range(2))
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(once.variables), jax.tree.leaves(again.variables),
                                              strict=True))
    assert once.variables["params"] is run.variables["params"]
    assert once.checkpoint.endswith("BatchNorm recalibrated on 256 training patches")


@pytest.mark.parametrize("count", [0, 100, 384])
def test_a_count_that_is_not_possible_is_refused(run, count):
    with pytest.raises(InputError, match=f"{count} patches to recalibrate on: expected a multiple of 128"):
        recalibrate(run, IMAGES, np.arange(300), count)


def with_frozen(run, frozen):
    config = copy.deepcopy(run.config)
    config.model.frozen = frozen
    return dataclasses.replace(run, config=config)


def test_frozen_layers_keep_their_statistics(run):
    before = run.variables["batch_stats"]["backbone"]
    mended = recalibrate(with_frozen(run, "block1_pool"), IMAGES, np.arange(300), 128)
    after = mended.variables["batch_stats"]["backbone"]
    kept = {name for name in before if np.array_equal(before[name]["mean"], after[name]["mean"])}
    assert kept == {"block1_bn1", "block1_bn2"}


def test_where_no_batch_norm_was_trained_there_is_nothing_to_recalibrate(run):
    with pytest.raises(InputError, match="tiny has no BatchNorm that was trained.*leave --recalibrate out"):
        recalibrate(with_frozen(run, "backbone"), IMAGES, np.arange(300), 128)
