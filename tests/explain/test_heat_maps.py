"""Heat maps of a run: each image for itself, at the size of the patch, zero maps told."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.explain.gradcam import grad_cam, normalise, upsample
from pcamjax.explain.heat_maps import heat_maps
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
    maps, is_zero = heat_maps(run, images, target="margin", layer=layer, batch_size=4)
    assert maps.shape == (5, 96, 96) and maps.dtype == np.float32 and is_zero.shape == (5,)
    for image, made, zero in zip(images, maps, is_zero, strict=True):
        alone = grad_cam(run.network, run.variables, run.preprocess(image[None]), target="margin", layer=layer)
        expected, expected_zero = normalise(upsample(alone, 96))
        np.testing.assert_allclose(made, expected[0], rtol=1e-4, atol=1e-5)
        assert zero == expected_zero[0]


def test_maps_reach_from_zero_to_one_and_a_zero_map_is_told(run, images):
    def every_other(logits):
        return logits[:, 1] * (jnp.arange(len(logits)) % 2)
    maps, is_zero = heat_maps(run, images, target=every_other, layer="block1_conv1", batch_size=8)
    assert is_zero.tolist() == [True, False, True, False, True]
    assert (maps[is_zero] == 0).all()
    assert maps.min() >= 0
    np.testing.assert_allclose(maps[~is_zero].max((1, 2)), 1, rtol=1e-6)


def test_an_unknown_target_or_layer_is_refused(run, images):
    with pytest.raises(InputError, match="target 2: expected a class from 0 to 1"):
        heat_maps(run, images, target=2)
    with pytest.raises(InputError, match="layer 'conv9'"):
        heat_maps(run, images, layer="conv9")
