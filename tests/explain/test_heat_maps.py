"""Heat maps of a run: each image for itself, at the size of the patch, zero maps told."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.explain.cams import grad_cam
from pcamjax.explain.heat_maps import heat_maps
from pcamjax.explain.methods import normalise, upsample
from pcamjax.inference.predict import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    tiny.register()
    folder = tmp_path_factory.mktemp("runs")
    return load_run(tiny.untrained_run(folder / "run", folder))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)


@pytest.mark.parametrize("layer", [None, "block2_conv2"])
def test_a_padded_batch_gives_each_image_the_map_that_it_has_alone(run, images, layer):
    maps, peaks = heat_maps(run, images, target="margin", layers=[layer] if layer else [], batch_size=4)
    assert maps.shape == (5, 96, 96) and maps.dtype == np.float32 and peaks.shape == (5,)
    for image, made, peak in zip(images, maps, peaks, strict=True):
        alone = grad_cam(run.network, run.variables, run.preprocess(image[None]), target="margin", layer=layer)
        expected, expected_peak = normalise(upsample(alone, (96, 96)))
        np.testing.assert_allclose(made, expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(peak, expected_peak[0], rtol=1e-4, atol=1e-9)


def test_maps_reach_from_zero_to_one_and_a_zero_map_is_told(run, images):
    def every_other(logits):
        return logits[:, 1] * (jnp.arange(len(logits)) % 2)
    made = heat_maps(run, images, target=every_other, layers=["block1_conv1"], batch_size=8)
    assert made.is_zero.tolist() == [True, False, True, False, True]
    assert (made.maps[made.is_zero] == 0).all()
    assert made.maps.min() >= 0
    np.testing.assert_allclose(made.maps[~made.is_zero].max((1, 2)), 1, rtol=1e-6)


def test_an_unknown_target_or_layer_is_refused(run, images):
    with pytest.raises(InputError, match="target 2: expected a class from 0 to 1"):
        heat_maps(run, images, target=2)
    with pytest.raises(InputError, match="layer 'conv9'"):
        heat_maps(run, images, layers=["conv9"])
