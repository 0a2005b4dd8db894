"""The synthetic generator keeps the rules that make its labels worth learning, and repeats to the byte."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from pcamjax.data.sources import synthetic as synthetic_source
from pcamjax.data.sources.synthetic import masks_of, open_synthetic
from pcamjax.data.synthetic import MACENKO, RUIFROK, generate
from pcamjax.errors import InputError


@pytest.fixture(scope="module")
def patches():
    return generate(1000, 0)


@pytest.fixture(scope="module")
def coverage(patches):
    return patches.tumour_masks.mean((1, 2))


def test_shapes_and_types(patches):
    assert (patches.images.shape, patches.images.dtype) == ((1000, 96, 96, 3), np.uint8)
    assert (patches.labels.shape, patches.labels.dtype) == ((1000,), np.int8)
    assert (patches.tumour_masks.shape, patches.tumour_masks.dtype) == ((1000, 96, 96), bool)
    assert patches.slides.shape == (1000,) and patches.slides.dtype.kind == "U"


def test_label_is_tumour_in_the_centre(patches):
    np.testing.assert_array_equal(patches.labels, patches.tumour_masks[:, 32:64, 32:64].any((1, 2)))
    assert 0.45 < patches.labels.mean() < 0.55


def test_tumour_outside_the_centre_in_a_third_of_the_negatives(patches, coverage):
    assert np.mean(coverage[patches.labels == 0] > 0) >= 1 / 3


def test_nests_cover_5_to_40_percent(coverage):
    assert coverage[coverage > 0].min() >= 0.05
    assert coverage.max() <= 0.40


def test_centroid_outside_the_centre_in_half_of_the_positives(patches):
    masks = patches.tumour_masks[patches.labels == 1]
    row = (masks.mean(2) @ np.arange(96)) / masks.mean(2).sum(1)
    column = (masks.mean(1) @ np.arange(96)) / masks.mean(1).sum(1)
    inside = (np.abs(row - 47.5) <= 16) & (np.abs(column - 47.5) <= 16)
    assert np.mean(~inside) >= 0.5


def test_no_borderline_patch(patches):
    positive = patches.labels == 1
    assert patches.tumour_masks[positive][:, 32:64, 32:64].mean((1, 2)).min() >= 0.2
    assert not patches.tumour_masks[~positive][:, 27:69, 27:69].any()


def test_mask_lies_on_the_tumour(patches):
    """Nuclei are vesicular in the nests, and dense outside them."""
    dark = patches.images.mean(-1) < 0.4 * patches.images.mean((1, 2, 3))[:, None, None]
    assert dark[patches.tumour_masks].mean() < 0.25 * dark[~patches.tumour_masks].mean()


def test_masks_of_a_store_are_drawn_again_by_its_ids(patches):
    masks = masks_of("synthetic, seed 0", ["train_000007", "train_000003"])
    np.testing.assert_array_equal(masks, patches.tumour_masks[[7, 3]])
    assert not np.array_equal(masks[:1], masks_of("synthetic, seed 1", ["train_000007"]))
    assert masks_of("PatchCamelyon", ["train_000007"]) is None


def test_same_seed_same_bytes_and_any_stretch_alone(patches):
    again, stretch = generate(20, 0), generate(5, 0, start=7)
    for name in patches._fields:
        np.testing.assert_array_equal(getattr(again, name), getattr(patches, name)[:20], strict=True)
        np.testing.assert_array_equal(getattr(stretch, name), getattr(patches, name)[7:12], strict=True)


def test_seeds_and_parts_differ(patches):
    for other in (generate(20, 1), generate(20, 0, part="valid"), generate(20, 0, start=20)):
        assert not (other.images == patches.images[:20]).all((1, 2, 3)).any()


def test_slides_have_stains_of_their_own(patches):
    names = [f"synthetic_train_{slide:02d}" for slide in range(24)]
    assert set(patches.slides) == set(names)
    colour = patches.images.mean((1, 2))
    colour = colour[:, 0] - colour[:, 2]
    within = np.mean([colour[patches.slides == name].std() for name in names])
    between = np.std([colour[patches.slides == name].mean() for name in names])
    assert between > within


def test_colour_is_two_published_dyes(patches):
    """Optical density lies in a plane, as Beer and Lambert say, and the plane is that of the two dyes."""
    published = np.cross(*(np.array(RUIFROK) + np.array(MACENKO)))
    normals = []
    for name in np.unique(patches.slides):
        images = patches.images[patches.slides == name].astype(float)
        light = np.quantile(images, 0.9999, axis=(0, 1, 2))
        density = -np.log10(np.maximum(images, 1) / light).reshape(-1, 3)
        values, vectors = np.linalg.eigh(density.T @ density)
        assert values[0] < 0.005 * values.sum()
        normals.append(vectors[:, 0] * np.sign(vectors[2, 0]))
    normal = np.sum(normals, axis=0)
    assert normal @ published > np.cos(np.radians(5)) * np.linalg.norm(normal) * np.linalg.norm(published)


def _colour_histograms(images):
    """Shares of the 8x8x8 RGB bins, the features of the thesis' classical models."""
    red, green, blue = np.moveaxis(images.reshape(len(images), -1, 3) >> 5, -1, 0).astype(np.int64)
    bins = 64 * red + 8 * green + blue
    return np.stack([np.bincount(row, minlength=512) for row in bins]) / bins.shape[1]


@pytest.mark.parametrize(("to_train", "to_test"), [
    (1000, 300), pytest.param(4000, 1000, marks=pytest.mark.exhaustive),
])
def test_colour_histograms_do_not_tell(patches, to_train, to_test):
    train = patches if to_train <= len(patches.labels) else generate(to_train, 0)
    test = generate(to_test, 0, part="test")
    features, test_features = _colour_histograms(train.images), _colour_histograms(test.images)
    for model in KNeighborsClassifier(15), SVC(C=1), SVC(C=10), RandomForestClassifier(200, random_state=0):
        model.fit(features, train.labels)
        score = getattr(model, "decision_function", lambda x, model=model: model.predict_proba(x)[:, 1])
        assert roc_auc_score(test.labels, score(test_features)) < 0.90, model


@pytest.mark.parametrize(("change", "message"), [
    ({"count": -1}, "count is -1"), ({"seed": -3}, "seed is -3"), ({"part": "tune"}, "part is 'tune'"),
    ({"start": -1}, "start is -1"), ({"slides": 0}, "slides is 0"),
])
def test_bad_numbers_are_named(change, message):
    with pytest.raises(InputError, match=message):
        generate(**{"count": 1, "seed": 0} | change)


def test_source(monkeypatch):
    monkeypatch.setattr(synthetic_source, "BATCH", 16)
    source = open_synthetic({"train": 40, "test": 10}, seed=5)
    batches = list(source.batches())
    assert len(source) == 50 == sum(len(batch.images) for batch in batches)
    assert [len(batch.images) for batch in batches] == [16, 16, 8, 10]
    ids = [name for batch in batches for name in batch.ids]
    assert ids == [f"train_{i:06d}" for i in range(40)] + [f"test_{i:06d}" for i in range(10)]
    parts = np.array([part for batch in batches for part in batch.parts])
    slides = np.array([slide for batch in batches for slide in batch.slides])
    assert parts.tolist() == ["train"] * 40 + ["test"] * 10
    assert not set(slides[parts == "train"]) & set(slides[parts == "test"])
    labels = np.concatenate([batch.labels for batch in batches])
    masks = np.concatenate([source.tumour_masks("train"), source.tumour_masks("test")])
    np.testing.assert_array_equal(labels, masks[:, 32:64, 32:64].any((1, 2)))
    (alone,) = open_synthetic({"test": 10}, seed=5).batches()
    np.testing.assert_array_equal(alone.images, batches[-1].images)


@pytest.mark.parametrize(("counts", "seed", "message"), [
    ({}, 0, "parts are"), ({"tune": 3}, 0, "'tune'"), ({"train": -2}, 0, "-2 of part 'train'"),
    ({"train": 2}, -1, "seed is -1"),
])
def test_bad_sources_are_named(counts, seed, message):
    with pytest.raises(InputError, match=message):
        open_synthetic(counts, seed)


def test_masks_of_a_part_that_is_not_there():
    with pytest.raises(InputError, match="no part 'valid'"):
        open_synthetic({"train": 2}, seed=0).tumour_masks("valid")
