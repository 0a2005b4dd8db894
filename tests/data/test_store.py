"""The store: whole or absent, the same bytes for the same patches, and damage noticed."""

import errno
import json
import os
import shutil

import numpy as np
import pytest

from pcamjax.data.store import PatchBatch, Patches, write_store
from pcamjax.errors import InputError


def batch(count=4, *, part="train", first=0, **changed) -> PatchBatch:
    images = np.random.default_rng(first).integers(0, 256, (count, 96, 96, 3), np.uint8)
    names = range(first, first + count)
    whole = PatchBatch(images, np.array([i % 2 for i in names], np.int8), [f"p{i}" for i in names],
                       [f"s{i // 2}" for i in names], [part] * count)
    return whole._replace(**changed)


class Batches:
    """A source that gives the batches it is made of, and raises those that are exceptions."""

    name = "batches"

    def __init__(self, *batches, count=None):
        self.given = batches
        self.count = count

    def __len__(self):
        return sum(len(b.images) for b in self.given) if self.count is None else self.count

    def batches(self):
        for given in self.given:
            if isinstance(given, BaseException):
                raise given
            yield given


def test_a_store_holds_what_the_source_gave(tmp_path):
    first, second = batch(5), batch(3, part="test", first=5, labels=np.array([-1, 0, 1], np.int8))
    patches = write_store(Batches(first, second), tmp_path / "store")
    np.testing.assert_array_equal(patches.images, np.concatenate([first.images, second.images]))
    assert patches.labels.tolist() == [0, 1, 0, 1, 0, -1, 0, 1]
    assert patches.ids.tolist() == [f"p{i}" for i in range(8)]
    assert patches.parts.tolist() == ["train"] * 5 + ["test"] * 3
    assert patches.manifest["parts"] == {
        "train": {"count": 5, "positive": 2, "negative": 3, "unlabelled": 0, "slides": 3},
        "test": {"count": 3, "positive": 1, "negative": 1, "unlabelled": 1, "slides": 2}}
    patches.verify()


def test_the_bytes_depend_on_the_patches_alone(tmp_path):
    one = write_store(Batches(batch(5), batch(3, first=5)), tmp_path / "a")
    images = np.concatenate([batch(5).images, batch(3, first=5).images])
    other = write_store(Batches(batch(8, images=images)), tmp_path / "elsewhere" / "b")
    assert {file.name for file in one.path.iterdir()} == {file.name for file in other.path.iterdir()}
    for file in one.path.iterdir():
        assert file.read_bytes() == (other.path / file.name).read_bytes(), file.name
    assert one.sha256 == other.sha256


def test_equal_pixels_have_equal_digests(tmp_path):
    images = batch().images.copy()
    images[2] = images[0]
    images[3] = images[0]
    images[3, 95, 95, 2] ^= 1
    digests = write_store(Batches(batch(images=images)), tmp_path / "s").digests
    assert (digests[0] == digests[2]).all() and (digests[0] != digests[3]).any()


@pytest.mark.parametrize(("source", "said"), [
    (Batches(batch(images=np.zeros((4, 96, 96, 3), np.float32))), "float32"),
    (Batches(batch(images=np.zeros((4, 96, 96, 1), np.uint8))), "96, 96, 1"),
    (Batches(batch(images=np.zeros((4, 48, 48, 3), np.uint8))), "48, 48, 3"),
    (Batches(batch(labels=np.array([0, 1, 2, 0], np.int8))), "label 2 of patch 'p2'"),
    (Batches(batch(labels=np.zeros(3, np.int8))), r"4 images, but \[3, 4, 4, 4\]"),
    (Batches(batch(ids=["a", "b", "a", "c"])), "'a' is empty or occurs twice"),
    (Batches(batch(), batch()), "'p0' is empty or occurs twice"),
    (Batches(batch(ids=["a", "", "b", "c"])), "'' is empty"),
    (Batches(batch(slides=["a\nb"] * 4)), "printable"),
    (Batches(batch(), count=5), "gave 4 patches of the 5"),
    (Batches(batch(), count=3), "more patches than the 3"),
    (Batches(), "no patches"),
])
def test_a_batch_that_breaks_the_contract_leaves_nothing(tmp_path, source, said):
    with pytest.raises(InputError, match=said):
        write_store(source, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), InputError("bad")])
def test_a_conversion_that_breaks_off_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        write_store(Batches(batch(), error, count=8), tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_one_clear_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="store: cannot be written .*No space left.*free space"):
        write_store(Batches(batch()), tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_noticed_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10**5))
    with pytest.raises(InputError, match="GB needed, 0.00 GB free"):
        write_store(Batches(RuntimeError("read"), count=8), tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_conversion_has_left_goes_with_the_next(tmp_path):
    for name in (".store.0123abcd.tmp", ".other.0123abcd.tmp", ".store.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".store.0123abcd.tmp" / "images.npy").write_text("half")
    (tmp_path / ".store.lock").write_text("process 1 on a host that is off\n")
    write_store(Batches(batch()), tmp_path / "store")
    assert {file.name for file in tmp_path.iterdir()} == {"store", ".other.0123abcd.tmp", ".store.tmp"}


def test_two_conversions_do_not_meet(tmp_path):
    class Meeting(Batches):
        def batches(self):
            with pytest.raises(InputError, match="process .* on .* .conversion since .* is at work there; wait"):
                write_store(Batches(batch()), tmp_path / "store")
            yield batch()

    write_store(Meeting(batch()), tmp_path / "store").verify()


def test_what_is_there_stays_there(tmp_path):
    store = write_store(Batches(batch()), tmp_path / "store")
    before = store.sha256
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    for taken in ("store", "empty", "file"):
        with pytest.raises(InputError, match="exists already"):
            write_store(Batches(batch(first=9)), tmp_path / taken)
    assert Patches.open(tmp_path / "store").sha256 == before and (tmp_path / "file").read_text() == "mine"


def _cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def _pickle(file):
    np.save(file, np.array([{"a": 1}] * 4, object), allow_pickle=True)


def _edit_manifest(**changed):
    return lambda file: file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize(("name", "damage", "said"), [
    ("images.npy", _cut, "images.npy: missing or truncated"),
    ("ids.npy", _cut, "ids.npy: missing or truncated"),
    ("labels.npy", _pickle, "labels.npy: missing or truncated"),
    ("slides.npy", os.remove, "slides.npy: missing or truncated"),
    ("labels.npy", lambda file: np.save(file, np.zeros(4)), r"labels.npy: float64 \[4\]"),
    ("parts.npy", lambda file: np.save(file, np.array(["a"] * 3)), r"parts.npy: <U1 \[3\]"),
    ("manifest.json", os.remove, "no store"),
    ("manifest.json", lambda file: file.write_text("{"), "not readable as JSON"),
    ("manifest.json", lambda file: file.write_text("[]"), "no manifest"),
    ("manifest.json", _edit_manifest(version=2), "version 1"),
    ("manifest.json", _edit_manifest(count=5), r"images.npy: uint8 \[4, 96, 96, 3\]"),
])
def test_damage_is_noticed_on_opening(tmp_path, name, damage, said):
    write_store(Batches(batch()), tmp_path / "store")
    damage(tmp_path / "store" / name)
    with pytest.raises(InputError, match=said):
        Patches.open(tmp_path / "store")


def test_a_changed_pixel_is_noticed_by_verify(tmp_path):
    patches = write_store(Batches(batch()), tmp_path / "store")
    with open(patches.path / "images.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    with pytest.raises(InputError, match="images.npy: changed"):
        Patches.open(patches.path).verify()
