"""Colour histograms against NumPy, matplotlib and the formula of stains, and against colours placed by hand."""

import matplotlib.colors
import numpy as np
import pytest

from pcamjax.baselines import histograms
from pcamjax.baselines.histograms import STAIN_RANGES, colour_histograms
from pcamjax.data.stain import EOSIN, HAEMATOXYLIN
from pcamjax.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
BINS = (4, 3, 5)


def of_one(colour, space, bins):
    """The bin, as three numbers, in which all pixels of a patch of one colour lie."""
    image = np.broadcast_to(np.array(colour, np.uint8), (1, 96, 96, 3))
    histogram = colour_histograms(image, np.array([0]), space=space, bins=bins)[0]
    assert histogram.max() == 1
    return tuple(int(place) for place in np.unravel_index(histogram.argmax(), bins))


def test_rgb_as_numpy_counts():
    ours = colour_histograms(IMAGES, np.array([2, 0]), space="rgb", bins=BINS)
    for histogram, image in zip(ours, IMAGES[[2, 0]], strict=True):
        counts, _ = np.histogramdd(image.reshape(-1, 3), BINS, [(0, 256)] * 3)
        np.testing.assert_array_equal(histogram, (counts.ravel() / 9216).astype(np.float32))


def test_hsv_as_matplotlib_converts():
    values = matplotlib.colors.rgb_to_hsv(IMAGES[0].reshape(-1, 3) / 255) * np.array([1, 1, 255 / 256]) * BINS
    places = np.minimum(np.floor(values), np.array(BINS) - 1).astype(int)
    # On the edge of a bin matplotlib's floating-point numbers may round to either side; ours are whole.
    certain = (np.abs(values - np.round(values)) > 1e-9).all(1) | (values == 0).any(1)
    assert certain.mean() > 0.95
    pixels = IMAGES[0].reshape(-1, 3)[certain]
    image = np.resize(pixels, (1, 96, 96, 3))  # repeats pixels to fill a patch
    expected = np.bincount(np.ravel_multi_index(np.resize(places[certain], (9216, 3)).T, BINS), minlength=60) / 9216
    ours = colour_histograms(image, np.array([0]), space="hsv", bins=BINS)[0]
    np.testing.assert_array_equal(ours, expected.astype(np.float32))


@pytest.mark.parametrize(("colour", "place"), [
    ((255, 0, 0), (0, 3, 3)), ((255, 255, 0), (1, 3, 3)), ((0, 128, 0), (2, 3, 2)), ((0, 255, 255), (3, 3, 3)),
    ((0, 0, 255), (4, 3, 3)), ((255, 0, 255), (5, 3, 3)), ((255, 0, 1), (5, 3, 3)), ((0, 0, 0), (0, 0, 0)),
    ((255, 255, 255), (0, 0, 3)), ((200, 100, 100), (0, 2, 3)), ((101, 100, 100), (0, 0, 1)),
])
def test_hsv_of_known_colours(colour, place):
    """The six corners of the hues stand on the edges of six bins; saturation and value are in quarters."""
    assert of_one(colour, "hsv", (6, 4, 4)) == place


def test_stains_as_the_formula_says():
    stains = [np.array(stain, float) / np.linalg.norm(stain)
              for stain in (HAEMATOXYLIN, EOSIN, np.cross(HAEMATOXYLIN, EOSIN))]
    expected = np.zeros(BINS)
    for pixel in IMAGES[1].reshape(-1, 3).astype(float):
        amounts = np.linalg.solve(np.array(stains).T, -np.log10((pixel + 1) / 256))
        place = [min(max(int(np.floor((amount - low) / (high - low) * count)), 0), count - 1)
                 for amount, (low, high), count in zip(amounts, STAIN_RANGES, BINS, strict=True)]
        expected[tuple(place)] += 1 / 9216
    ours = colour_histograms(IMAGES, np.array([1]), space="stain", bins=BINS)[0]
    np.testing.assert_allclose(ours, expected.ravel(), atol=1e-6)


def test_stained_patches_lie_where_their_stain_is():
    def stained(haematoxylin, eosin):
        densities = haematoxylin * np.array(HAEMATOXYLIN) / np.linalg.norm(HAEMATOXYLIN) + (
            eosin * np.array(EOSIN) / np.linalg.norm(EOSIN))
        return np.round(256 * 10**-densities - 1)
    assert of_one((255, 255, 255), "stain", (6, 4, 4)) == (0, 0, 0)
    assert of_one(stained(0.6, 0.0), "stain", (6, 4, 4))[0] == 2  # 0.5 to 0.75 of 1.5
    assert of_one(stained(0.1, 0.4), "stain", (6, 4, 4))[:2] == (0, 1)  # 0.25 to 0.5 of 1
    assert of_one(stained(1.8, 0.1), "stain", (6, 4, 4))[:2] == (5, 0)  # beyond: the outermost


def test_patches_come_in_the_order_asked_for_whatever_the_batches(monkeypatch):
    whole = colour_histograms(IMAGES, np.array([1, 2, 0, 1]), space="rgb", bins=BINS)
    monkeypatch.setattr(histograms, "BATCH", 3)
    np.testing.assert_array_equal(colour_histograms(IMAGES, np.array([1, 2, 0, 1]), space="rgb", bins=BINS), whole)
    np.testing.assert_array_equal(whole[0], whole[3])
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-6)
    assert (whole[0] != whole[1]).any() and whole.dtype == np.float32


@pytest.mark.parametrize(("space", "bins", "said"), [
    ("lab", BINS, "config.features.space = 'lab': choose one of rgb, hsv, stain"),
    ("rgb", (8, 8), r"config.features.bins = \(8, 8\): expected three whole numbers of 1 to 256 whose product"),
    ("rgb", (8, 8, 0), "expected three whole numbers"), ("rgb", (8, 8, 2.5), "expected three whole numbers"),
    ("rgb", (8, 8, 257), "expected three whole numbers"), ("rgb", (64, 64, 32), "whose product is 65536 at most"),
])
def test_what_is_not_possible_is_named(space, bins, said):
    with pytest.raises(InputError, match=said):
        colour_histograms(IMAGES, np.array([0]), space=space, bins=bins)
