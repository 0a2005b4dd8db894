"""Splits: who is where, what leaks, and what cannot be split."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcamjax.data.splits import make_split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError


def patches(labels, slides=None, parts=None, images=None) -> Patches:
    """A store in memory; `images` numbers the distinct images, all different by default."""
    count = len(labels)
    digests = np.zeros((count, 16), np.uint8)
    numbers = np.arange(count) if images is None else np.asarray(images)
    digests[:, :8] = numbers.astype("<u8")[:, None].view(np.uint8)
    return Patches(np.broadcast_to(np.uint8(0), (count, 96, 96, 3)), np.asarray(labels, np.int8),
                   np.array([f"p{i}" for i in range(count)]),
                   np.array([""] * count if slides is None else slides, str),
                   np.array(["train"] * count if parts is None else parts), digests, {}, Path("memory"))


def by_slides(count=400, slides=20, **changed):
    rng = np.random.default_rng(0)
    return patches(rng.integers(0, 2, count), [f"s{i}" for i in rng.integers(0, slides, count)], **changed)


def assert_partition(store, split):
    rows = np.concatenate(list(split.indices.values()))
    assert sorted(rows.tolist()) == np.flatnonzero(store.labels >= 0).tolist(), "every labelled patch once"
    for part in split.indices.values():
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()


def shared(column, split):
    """How many values of a column occur in more than one part."""
    parts = [set(map(bytes, column[rows])) if column.ndim > 1 else set(column[rows].tolist())
             for rows in split.indices.values()]
    return sum(map(len, parts)) - len(set().union(*parts))


def test_official_takes_the_parts_of_the_source_as_they_are():
    store = patches([1, 0, -1, 1, 0], parts=["valid", "train", "test", "train", "valid"])
    split = make_split(store, "official")
    assert {part: rows.tolist() for part, rows in split.indices.items()} == {
        "train": [1, 3], "valid": [0, 4], "test": [2]}
    assert list(split.indices) == ["train", "valid", "test"]


@pytest.mark.parametrize(("slides", "leaks", "said"), [
    (["a", "a", "b", "c"], False, "no slide lies in two parts"),
    (["a", "b", "b", "c"], True, "SLIDES LEAK: 1 lie in two parts"),
    (["a", "b", "b", ""], None, "slides are not known"),
])
def test_official_says_what_its_parts_share(slides, leaks, said):
    store = patches([1, 0, 1, 0], slides, ["train", "train", "test", "test"], [7, 8, 9, 7])
    split = make_split(store, "official")
    assert split.leaks_slides is leaks
    assert said in split.description and "1 images lie in two parts" in split.description


def test_a_part_that_is_not_there_is_named_with_those_that_are():
    split = make_split(patches([1, 0], parts=["train", "test"]), "official")
    assert split.part("test").tolist() == [1]
    with pytest.raises(InputError, match="'official' has no part 'valid', only train, test"):
        split.part("valid")


def test_the_thesis_split_has_the_thesis_sizes_on_the_whole_of_kaggle():
    split = make_split(patches(np.arange(220_025) % 2), "random_slides_leak", seed=1)
    sizes = {part: len(rows) for part, rows in split.indices.items()}
    assert sizes == {"train": 187_000 - 37_400, "valid": 37_400, "test": 33_025}
    assert split.leaks_slides is True and "SLIDES LEAK" in split.description and "leak" in split.name


def test_the_thesis_split_of_other_sizes_keeps_the_proportions_of_the_labelled():
    store = patches([*np.arange(1000) % 2, *[-1] * 50])
    split = make_split(store, "random_slides_leak")
    sizes = {part: len(rows) for part, rows in split.indices.items()}
    assert sizes == {"train": 680, "valid": 170, "test": 150}
    assert_partition(store, split)
    # Drawn at random, not cut in order: the mean row of each part is near the middle.
    assert all(420 < rows.mean() < 580 for rows in split.indices.values())


@pytest.mark.parametrize("name", ["by_slide", "random_slides_leak"])
def test_a_split_depends_on_the_seed_alone(name):
    one, same, other = (make_split(by_slides(), name, seed=seed) for seed in (3, 3, 4))
    for part in one.indices:
        np.testing.assert_array_equal(one.indices[part], same.indices[part])
    assert any(not np.array_equal(one.indices[part], other.indices[part]) for part in one.indices)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(12, 40), st.integers(0, 6), st.integers(0, 5))
def test_our_splits_share_no_slide_and_no_duplicate(seed, slides, repeated, folds):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, 300)
    images = np.arange(300)
    images[:repeated] = images[rng.integers(0, 300, repeated)]
    store = patches(labels, [f"s{i}" for i in rng.integers(0, slides, 300)], images=images)
    folds = 0 if folds < 3 else folds
    split = make_split(store, "by_slide", seed=seed, folds=folds, fold=min(folds, 2))
    assert split.leaks_slides is False and set(split.indices) == {"train", "valid", "test"}
    assert_partition(store, split)
    assert shared(store.slides, split) == 0 and shared(store.digests, split) == 0
    leaky = make_split(store, "random_slides_leak", seed=seed)
    assert_partition(store, leaky)
    assert shared(store.digests, leaky) == 0 and shared(store.slides, leaky) > 0


def test_duplicates_on_two_slides_keep_these_slides_together():
    rng = np.random.default_rng(0)
    slides = np.arange(400) // 20
    images = np.arange(400)
    images[0] = images[399]  # joins the first slide to the last
    for seed in range(10):
        store = patches(rng.integers(0, 2, 400), slides.astype(str), images=images)
        split = make_split(store, "by_slide", seed=seed)
        assert [part for part, rows in split.indices.items() if 0 in rows] == [
            part for part, rows in split.indices.items() if 399 in rows]


def test_by_slide_keeps_to_the_fractions_and_balances_labels():
    store = by_slides(6000, 60)
    split = make_split(store, "by_slide", fractions=(0.6, 0.2, 0.2))
    for part, fraction in (("train", 0.6), ("valid", 0.2), ("test", 0.2)):
        rows = split.indices[part]
        assert abs(len(rows) / 6000 - fraction) < 0.05
        assert abs(store.labels[rows].mean() - store.labels.mean()) < 0.05


def test_folds_test_every_patch_once():
    store = by_slides()
    splits = [make_split(store, "by_slide", seed=5, folds=4, fold=fold) for fold in (1, 2, 3, 4)]
    assert [split.name for split in splits] == [f"by_slide_fold{k}of4" for k in (1, 2, 3, 4)]
    tested = np.concatenate([split.indices["test"] for split in splits])
    assert sorted(tested.tolist()) == list(range(400))
    np.testing.assert_array_equal(splits[0].indices["valid"], splits[1].indices["test"])


@pytest.mark.parametrize(("store", "arguments", "said"), [
    (patches([0, 1] * 50), {}, "slides are not known"),
    (patches([-1] * 5, ["a"] * 5), {}, "no patch has a label"),
    (by_slides(slides=2), {}, "2 independent slides .* too few for 7 parts"),
    (patches([1, *[0] * 99], [str(i) for i in range(100)]), {}, "1 patches of the rarer label"),
    (by_slides(), {"folds": 2}, "fold 1 of 2: expected at least 3 folds"),
    (by_slides(), {"folds": 4, "fold": 5}, "fold 5 of 4"),
    (by_slides(), {"folds": 4, "fold": 0}, "fold 0 of 4"),
    (by_slides(), {"fractions": (0.5, 0.1, 0.1)}, "sum to 1"),
    (by_slides(), {"fractions": (1.0, 0.5, -0.5)}, "three positive numbers"),
])
def test_what_cannot_be_split_by_slide_says_why(store, arguments, said):
    with pytest.raises(InputError, match=said):
        make_split(store, "by_slide", **arguments)


def test_names_and_parts_that_are_not_known_are_refused():
    with pytest.raises(InputError, match="split 'by_slides' is not known; choose one of official, by_slide"):
        make_split(by_slides(), "by_slides")
    with pytest.raises(InputError, match="a part 'holdout'"):
        make_split(patches([1, 0], parts=["train", "holdout"]), "official")


def write(tmp_path, *rows, header="id,split"):
    file = tmp_path / "split.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_a_file_assigns_each_patch(tmp_path):
    file = write(tmp_path, "p3,test", "p0,train", "p2,unused", "p1,train")
    split = make_split(patches([1, 0, 1, 0], ["a", "b", "c", "a"]), "file", file=file)
    assert {part: rows.tolist() for part, rows in split.indices.items()} == {"train": [0, 1], "test": [3]}
    assert split.leaks_slides is True
    assert split.description.startswith("the parts listed in split.csv; SLIDES LEAK: 1")


@pytest.mark.parametrize(("rows", "said"), [
    (["p0,train"], "split.csv: 1 patches of memory are not in it, the first is 'p1'"),
    (["p0,train", "p1,test", "q,test"], "1 ids are not in memory, one is 'q'"),
    (["p0,train", "p1,test", "p0,test"], "line 4: id 'p0' is there twice"),
    (["p0,train", "p1,validation"], "line 3: split 'validation', expected train, valid, test or unused"),
    (["p0,train", "p1"], "line 3: not 2 fields"),
    (["p0,unused", "p1,unused"], "every patch is unused"),
])
def test_a_file_that_does_not_fit_is_refused(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        make_split(patches([1, 0]), "file", file=write(tmp_path, *rows))


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="gone.csv: no such file"):
        make_split(patches([1, 0]), "file", file=tmp_path / "gone.csv")
    with pytest.raises(InputError, match="config.data.split.file"):
        make_split(patches([1, 0]), "file", file="")
    with pytest.raises(InputError, match="no column 'split'"):
        make_split(patches([1, 0]), "file", file=write(tmp_path, header="id,part"))
