"""Augmentation against SciPy and NumPy, and what it promises about labels and keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage

from pcamjax.data import augment as module
from pcamjax.data.augment import augment, warp
from pcamjax.errors import InputError

AFFINE = {"rotation": 90, "zoom": 0.2, "shift": 4}
THESIS = AFFINE | {"flips": True}


def noise(count, height=96, width=96):
    return jnp.asarray(np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def keys(count, seed=0):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(count))


def augmented(images, keys, config):
    return np.asarray(jax.jit(partial(augment, config=config))(images, keys))


def upright(image):
    return [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]


def all_eight(image):
    return [np.rot90(side, turns) for side in (image, image[::-1]) for turns in range(4)]


@pytest.fixture
def matrices(monkeypatch):
    """The maps from output to source that `augment` draws and its bound on their reach, sampling nothing."""
    def drawn(config, count, size=(96, 96)):
        caught = []
        with monkeypatch.context() as patch:
            patch.setattr(module, "warp", lambda images, *rest: caught.append(rest) or images * 1.0)
            augment(jnp.zeros((count, *size, 3), jnp.uint8), keys(count), config)
        (maps, reach), = caught
        return np.asarray(maps, np.float64), reach

    return drawn


@pytest.mark.parametrize("size", [(96, 96), (40, 56)])
def test_warp_equals_scipy(matrices, size):
    images = noise(6, *size)
    maps, reach = matrices(THESIS, 6, size)
    warped = np.asarray(jax.jit(partial(warp, reach=reach))(images, maps.astype(np.float32)))
    for image, (linear, offset), ours in zip(
            np.asarray(images, np.float64), ((m[:, :2], m[:, 2]) for m in maps), warped, strict=True):
        expected = [ndimage.affine_transform(image[..., c], linear, offset, order=1, mode="reflect")
                    for c in range(3)]
        # On white noise the 2e-5 px of a coordinate's rounding are up to 0.005 grey levels.
        np.testing.assert_allclose(ours, np.stack(expected, -1), atol=0.01)


def test_augment_samples_with_the_maps_it_draws(matrices):
    images = noise(5)
    maps, reach = matrices(THESIS, 5)
    expected = jax.jit(partial(warp, reach=reach))(images, jnp.float32(maps))
    np.testing.assert_allclose(augmented(images, keys(5), THESIS), expected, atol=0.01)


def test_reach_bounds_every_source_coordinate(matrices):
    maps, reach = matrices(AFFINE | {"zoom": 0.6}, 2000)
    corners = np.array([[0, 0, 1], [0, 95, 1], [95, 0, 1], [95, 95, 1]]).T
    assert 0.7 * reach < np.abs(maps @ corners).max() < reach


def test_borders_are_mirrored_with_the_edge_pixel_twice():
    images = jnp.tile(jnp.arange(4, dtype=jnp.uint8)[None, None, :, None], (1, 4, 1, 3))
    moved = [warp(images, jnp.array([[[1.0, 0, 0], [0, 1, by]]]), 12.0)[0, 0, :, 0] for by in (-3, 3, 8)]
    np.testing.assert_array_equal(moved, [[2, 1, 0, 0], [3, 3, 2, 1], [0, 1, 2, 3]])


@pytest.mark.parametrize("config, symmetries", [
    ({"symmetries": True}, all_eight), ({"symmetries": True, "flips": True}, all_eight),
    ({"flips": True}, upright), ({}, lambda image: [image])], ids=["symmetries", "both", "flips", "off"])
def test_exact_symmetries_come_equally_often(config, symmetries):
    count = 4096
    image = np.asarray(noise(1, 6, 6))
    result = augmented(np.repeat(image, count, 0), keys(count), config)
    assert result.dtype == np.float32
    frequencies = [(result == turned).all((1, 2, 3)).mean() for turned in symmetries(image[0])]
    # Four standard deviations of a binomial frequency.
    np.testing.assert_allclose(frequencies, 1 / len(frequencies), atol=0.027)
    assert sum(frequencies) == 1


@pytest.mark.parametrize("exact", ["symmetries", "flips"])
def test_the_warp_contains_the_same_symmetry(exact):
    images, config = noise(32, 24, 24), {exact: True}
    nearly = augmented(images, keys(32), config | {"shift": 1e-6})
    np.testing.assert_allclose(nearly, augmented(images, keys(32), config), atol=0.01)


def test_draws_fill_their_ranges(matrices):
    maps, _ = matrices(AFFINE, 2000)
    linear = maps[:, :, :2]
    angle = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    magnification = 1 / np.sqrt(np.linalg.det(linear))
    centre = np.array([47.5, 47.5])
    shift = np.linalg.solve(linear, (centre - maps[:, :, 2])[..., None])[..., 0] - centre
    ranges = [(angle, -90, 90), (magnification, 0.8, 1.2), (shift[:, 0], -4, 4), (shift[:, 1], -4, 4)]
    for drawn, low, high in ranges:
        margin = 1e-4 * (high - low)
        assert low - margin <= drawn.min() and drawn.max() <= high + margin
        # Each tenth of the range gets its tenth.
        tenths = np.histogram(drawn, 10, (low - margin, high + margin))[0] / 2000
        np.testing.assert_allclose(tenths, 0.1, atol=0.03)
    drawn = np.stack([angle, magnification, *shift.T])
    np.testing.assert_allclose(np.corrcoef(drawn), np.eye(4), atol=0.1)


def test_the_centre_that_bears_the_label_stays_inside(matrices):
    maps, _ = matrices(AFFINE, 2000)
    corners = 47.5 + 16 * np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]])
    seen_at = np.linalg.solve(maps[:, :, :2], corners - maps[:, :, 2:])
    assert -0.5 <= seen_at.min() and seen_at.max() <= 95.5

    # And in pixels: the centre keeps its whole area, magnified (mirrored copies could only add to it).
    images = jnp.zeros((64, 96, 96, 3), jnp.uint8).at[:, 32:64, 32:64].set(255)
    area = augmented(images, keys(64), THESIS)[..., 0].sum((1, 2)) / 255
    assert (area >= 0.99 * 32**2 / np.linalg.det(matrices(THESIS, 64)[0][:, :, :2])).all()


def test_an_image_depends_on_its_own_key_alone():
    images, own = noise(8), keys(8)
    run = partial(augmented, config=THESIS)
    whole, order = run(images, own), np.array([5, 2, 7, 0, 1, 3, 6, 4])
    np.testing.assert_array_equal(run(images[order], own[order]), whole[order])
    np.testing.assert_allclose(run(images[3:5], own[3:5]), whole[3:5], atol=1e-3)
    np.testing.assert_array_equal(run(images, own), whole)
    assert np.abs(run(images, keys(8, seed=1)) - whole).mean((1, 2, 3)).min() > 10


def test_takes_a_config_dict():
    config = ConfigDict({"flips": True, "symmetries": False, "rotation": 0.0, "zoom": 0.0, "shift": 0})
    expected = augmented(noise(4), keys(4), {"flips": True})
    np.testing.assert_array_equal(augmented(noise(4), keys(4), config), expected)


@pytest.mark.parametrize("config, words", [
    ({"rotate": 90}, "'rotate' is not known; known are symmetries, flips, rotation, zoom, shift"),
    ({"zoom": -0.1}, "zoom = -0.1"), ({"zoom": 1}, "zoom = 1: expected a number from 0 to 0.9"),
    ({"rotation": "90"}, "rotation = '90'"), ({"shift": float("nan")}, "shift = nan"),
    (AFFINE | {"shift": 25}, "could move the label-bearing centre 4.2 px out of a 96x96 image")])
def test_bad_options_are_named(config, words):
    with pytest.raises(InputError, match=words):
        augment(noise(2), keys(2), config)


def test_symmetries_need_squares():
    with pytest.raises(InputError, match="these are 40x56; use flips"):
        augment(noise(2, 40, 56), keys(2), {"symmetries": True})
