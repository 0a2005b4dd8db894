"""A network's features: the mean of its feature map, each patch once, on any number of devices."""

import numpy as np
import pytest
import tiny

from pcamjax.baselines.network_features import make_pooled_features, variables_sha256
from pcamjax.inference.predict import load_run
from pcamjax.training.run import RunFolder


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    tiny.register()
    return tiny.write_noise(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def path(patches, tmp_path_factory):
    return tiny.untrained_run(tmp_path_factory.mktemp("runs") / "run", patches.path)


@pytest.mark.parametrize("devices", [1, 4])
def test_the_mean_over_positions_of_the_feature_map(path, patches, devices):
    config = RunFolder(path).config()
    config.parallel.devices = devices
    run, rows = load_run(path, config=config), np.array([70, 3, 4, 5, 6, 7, 8, 9, 10, 50, 11])
    maps = run.network.apply(run.variables, run.preprocess(patches.images[rows]), method="features")
    assert maps.shape[1:] == (8, 8, 8)
    features = make_pooled_features(run)(patches.images, rows)
    np.testing.assert_allclose(features, np.asarray(maps).mean((1, 2)), rtol=1e-4, atol=1e-6)
    assert features.dtype == np.float32


def test_other_variables_have_another_name(path, patches, tmp_path):
    other = tiny.untrained_run(tmp_path / "other", patches.path, seed=1)
    assert variables_sha256(load_run(path)) == variables_sha256(load_run(path)) != variables_sha256(load_run(other))
