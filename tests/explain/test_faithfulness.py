"""Deletion, insertion and confidence with networks whose answers are known beforehand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcamjax.errors import InputError
from pcamjax.explain.faithfulness import (
    area_under,
    blurred,
    confidence_change,
    deletion_curve,
    insertion_curve,
    mean_colour,
)

WHITE = np.full((3, 8, 8, 3), 255, np.uint8)
QUARTER = np.zeros((3, 8, 8), np.float32)
QUARTER[:, :4, :4] = 1


def brightness_of_the_quarter(images):
    return images[:, :4, :4].mean((1, 2, 3)) / 255


@pytest.mark.parametrize("maps, gone, area", [(QUARTER, [1, 0, 0, 0, 0], 1 / 8), (1 - QUARTER, [1, 1, 1, 1, 0], 7 / 8)],
                         ids=["oracle", "its opposite"])
def test_curves_of_a_network_that_sees_a_quarter_of_the_image(maps, gone, area):
    deleted, inserted = (curve(brightness_of_the_quarter, WHITE, maps, replacement=np.zeros_like, steps=4)
                         for curve in (deletion_curve, insertion_curve))
    np.testing.assert_allclose(deleted, [gone] * 3)
    np.testing.assert_allclose(inserted, 1 - np.array([gone] * 3))
    np.testing.assert_allclose(area_under(deleted), area)
    np.testing.assert_allclose(area_under(inserted), 1 - area)


def test_equal_values_go_in_random_order():
    curves = [deletion_curve(brightness_of_the_quarter, WHITE, np.zeros((3, 8, 8), np.float32), steps=4, seed=seed,
                             replacement=np.zeros_like) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(curves[0], curves[1])
    assert (curves[0] != curves[2]).any() and (curves[0][0] != curves[0][1]).any()
    assert abs(area_under(curves[0]).mean() - 0.5) < 0.1


def test_steps_that_do_not_divide_the_pixels_are_equal_to_a_pixel():
    maps = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    curve = deletion_curve(lambda images: images.mean((1, 2, 3)) / 255, WHITE[:1], maps, steps=5,
                           replacement=np.zeros_like)
    np.testing.assert_allclose(64 * curve[0], [64, 64 - 13, 64 - 26, 64 - 38, 64 - 51, 0])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_only_the_order_of_the_values_counts(seed):
    maps = np.random.default_rng(seed).random((3, 8, 8), np.float32)
    first, other = (deletion_curve(brightness_of_the_quarter, WHITE, made, steps=8, replacement=np.zeros_like)
                    for made in (maps, np.exp(3 * maps.astype(np.float64))))
    np.testing.assert_array_equal(first, other)
    assert (np.diff(first, axis=1) <= 0).all()


def test_area_of_a_straight_line_and_of_a_constant():
    np.testing.assert_allclose(area_under(np.array([[1, 0.75, 0.5, 0.25, 0], [0.3] * 5])), [0.5, 0.3])


def test_confidence_where_only_the_map_is_seen():
    images = np.repeat(WHITE[:1], 4, 0)
    # The evidence alone; a quarter of its brightness; nothing of it; none at all.
    maps = np.stack([QUARTER[0], 1 - 0.75 * QUARTER[0], 1 - QUARTER[0], np.zeros((8, 8), np.float32)])
    for unit in (1, 1 / 16):
        drop, increase = confidence_change(brightness_of_the_quarter, images, unit * maps, replacement=np.zeros_like)
        np.testing.assert_allclose(drop, [0, 0.75, 1, 1], atol=0.01)
        np.testing.assert_array_equal(increase, 0)


def test_confidence_that_rises():
    def darkness_outside(images):
        return 1 - images[:, 4:].mean((1, 2, 3)) / 510  # 0.5 for white, 1 for black
    drop, increase = confidence_change(darkness_outside, WHITE, QUARTER, replacement=np.zeros_like)
    np.testing.assert_array_equal(drop, 0)
    np.testing.assert_array_equal(increase, 1)


def test_no_confidence_cannot_drop():
    drop, increase = confidence_change(lambda images: np.zeros(len(images)), WHITE, QUARTER)
    assert np.isnan(drop).all() and (increase == 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_replaces_a_pixel(dtype):
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(dtype)
    for made in (mean_colour(images), blurred(images)):
        assert made.dtype == images.dtype and made.shape == images.shape
    np.testing.assert_allclose(mean_colour(images), np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape),
                               atol=0.5)
    # Images are blurred each for itself, colours too.
    np.testing.assert_array_equal(blurred(images[:1])[0], blurred(images)[0])
    images[..., 1] = 0
    assert (blurred(images)[..., 1] == 0).all()


def test_blur_wipes_nuclei_out_and_keeps_nests():
    x = np.arange(96)
    left = []
    for period in (10, 60):
        wave = 128 + 100 * np.sin(2 * np.pi * x / period)
        image = np.broadcast_to(wave[None, None, :, None], (1, 96, 96, 3)).astype(np.float32)
        left.append(np.ptp(blurred(image)[0, 48, 20:76, 0]) / 200)
    assert left[0] < 0.01 and left[1] > 0.8


def test_batches_have_one_size_and_padding_is_not_seen():
    sizes = []

    def predict(images):
        sizes.append(len(images))
        return brightness_of_the_quarter(images)

    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    maps = np.random.default_rng(1).random((5, 8, 8), np.float32)
    curves = deletion_curve(predict, images, maps, steps=2, batch_size=4)
    assert set(sizes) == {4} and len(sizes) == 2 * 3
    np.testing.assert_allclose(curves[:, 0], brightness_of_the_quarter(images))
    np.testing.assert_allclose(curves, deletion_curve(predict, images, maps, steps=2, batch_size=5))


@pytest.mark.parametrize("predict, images, steps, words", [
    (lambda images: images.mean((1, 2, 3)), WHITE, 2, "gave .* to 255.0 for 32 images, expected a probability"),
    (lambda images: np.full((len(images), 2), 0.5), WHITE, 2, r"gave \[32, 2\]"),
    (lambda images: np.full(len(images), np.nan), WHITE, 2, "from nan to nan"),
    (brightness_of_the_quarter, WHITE[:0], 2, "there are no images"),
    (brightness_of_the_quarter, WHITE, 0, "0 steps: expected 1 or more")])
def test_what_cannot_be_measured(predict, images, steps, words):
    with pytest.raises(InputError, match=words):
        deletion_curve(predict, images, QUARTER[:len(images)], steps=steps)
