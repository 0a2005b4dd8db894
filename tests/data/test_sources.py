"""The layouts in which patches come: what is read from them, and what is refused."""

import gzip
import hashlib
import struct
import subprocess
import sys
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from pcamjax.data.sources import pcam_hdf5
from pcamjax.data.sources.folder import open_folder
from pcamjax.data.sources.kaggle import open_kaggle
from pcamjax.data.sources.pcam_hdf5 import PUBLISHED_MD5, STEM, open_pcam_hdf5
from pcamjax.data.store import write_store
from pcamjax.errors import InputError

HEADER = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"


def pixels(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), np.uint8)


def write_pcam(folder, part, x, y, *, meta=None, packed=False):
    for axis, array in (("x", x), ("y", np.asarray(y, np.uint8).reshape(-1, 1, 1, 1))):
        file = folder / f"{STEM}{part}_{axis}.h5"
        with h5py.File(file, "w") as opened:
            opened.create_dataset(axis, data=array)
        if packed:
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
            file.unlink()
    if meta is not None:
        rows = [f"{i},{7 * i},{5 * i},True,{bool(label)},{slide}" for i, (label, slide) in enumerate(meta)]
        (folder / f"{STEM}{part}_meta.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def write_kaggle(folder, x, y):
    names = [hashlib.sha1(bytes([i])).hexdigest() for i in range(len(x))]
    (folder / "train").mkdir(parents=True)
    for name, image in zip(names, x, strict=True):
        Image.fromarray(image).save(folder / "train" / f"{name}.tif")
    rows = [f"{name},{label}" for name, label in zip(names, y, strict=True)]
    (folder / "train_labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    return names


def read(source):
    """All batches of a source, joined."""
    columns = list(zip(*source.batches(), strict=True))
    return [np.concatenate(column) for column in columns]


# PCam

@pytest.mark.parametrize("packed", [False, True])
def test_pcam_parts_come_in_order_with_their_slides(tmp_path, packed):
    x, y = pixels(5), [0, 1, 1, 0, 1]
    write_pcam(tmp_path, "valid", x[3:], y[3:], packed=packed)
    meta = list(zip(y[:3], ("tumor_001", "normal_7", "tumor_001"), strict=True))
    write_pcam(tmp_path, "train", x[:3], y[:3], meta=meta, packed=packed)
    source = open_pcam_hdf5(tmp_path, output=tmp_path / "store")
    images, labels, ids, slides, parts = read(source)
    assert len(source) == 5
    np.testing.assert_array_equal(images, x)
    assert labels.tolist() == y
    assert ids.tolist() == ["train_000000", "train_000001", "train_000002", "valid_000000", "valid_000001"]
    assert slides.tolist() == ["tumor_001", "normal_7", "tumor_001", "", ""]
    assert parts.tolist() == ["train"] * 3 + ["valid"] * 2
    assert not list(tmp_path.glob(".store.*")), "what was unpacked is removed"


def test_more_patches_than_a_batch_keep_their_rows(tmp_path):
    count = 1030
    x = np.broadcast_to(np.arange(count).astype(np.uint8)[:, None, None, None], (count, 96, 96, 3))
    write_pcam(tmp_path, "test", x, np.arange(count) % 2, meta=[(i % 2, f"s{i}") for i in range(count)])
    batches = list(open_pcam_hdf5(tmp_path).batches())
    assert [len(batch.images) for batch in batches] == [1024, 6]
    assert batches[1].images[:, 0, 0, 0].tolist() == [i % 256 for i in range(1024, 1030)]
    assert batches[1].slides[0] == "s1024" and batches[1].ids[0] == "test_001024"


def _file(axis, suffix=""):
    return f"{STEM}train_{axis}.h5{suffix}"


def _truncate(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5000])


def _rewrite(axis, array):
    def damage(folder):
        with h5py.File(folder / _file(axis), "w") as file:
            file.create_dataset(axis, data=array)
    return damage


def _meta(text):
    return lambda folder: (folder / f"{STEM}train_meta.csv").write_text(text)


def _packed(content):
    return lambda folder: (folder / _file("x", ".gz")).write_bytes(content)


def _group(folder):
    with h5py.File(folder / _file("x"), "w") as file:
        file.create_group("x")


@pytest.mark.parametrize(("damage", "said"), [
    (lambda folder: (folder / _file("x")).unlink(), "_x.h5: missing, plain or .gz, beside .*_y.h5"),
    (lambda folder: (folder / _file("y")).unlink(), "_y.h5: missing"),
    (_truncate(_file("x")), "_x.h5: truncated or not the HDF5"),
    (_group, "'x' is a group"),
    (_rewrite("x", pixels(3)), "3 images, but 4 labels"),
    (_rewrite("x", pixels(4).astype(np.float32)), "float32"),
    (_rewrite("x", pixels(4)[..., :1]), "96, 96, 1"),
    (_rewrite("x", np.zeros((4, 96, 96, 4), np.uint8)), "96, 96, 4.*alpha"),
    (_rewrite("x", pixels(4)[:, :64]), "64, 96, 3"),
    (_rewrite("y", np.array([0, 1, 2, 0], np.uint8)), "_y.h5: label 2 in row 2"),
    (_rewrite("y", np.array([0, 1, 1, 0], np.float32)), "labels are float32"),
    (_rewrite("y", np.zeros((4, 2), np.uint8)), r"\[4, 2\]"),
    (_rewrite("y", np.zeros((0, 1, 1, 1), np.uint8)), "no labels"),
    (_meta(f"{HEADER}\n0,0,0,True,False,a\n"), "1 rows, but 4 labels"),
    (_meta("id,slide\n" + "0,a\n" * 4), "no column 'wsi'"),
    (_meta(f"{HEADER}\n" + "0,0,0,True,True,a\n" * 4), "agrees with 50% of the labels"),
    (_meta(f"{HEADER}\n" + "0,0,0,True,True,\n" * 4), "no slide in row 0"),
    (_meta(f"{HEADER}\n" + "0,0\n" * 4), "line 2: not 6 fields"),
])
def test_pcam_that_is_not_pcam_is_refused(tmp_path, damage, said):
    write_pcam(tmp_path, "train", pixels(4), [0, 1, 1, 0])
    damage(tmp_path)
    with pytest.raises(InputError, match=said) as error:
        open_pcam_hdf5(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("damage", "said"), [
    (_truncate(_file("x", ".gz")), "x.h5.gz: truncated"),
    (_packed(b"no gzip"), "x.h5.gz: truncated or not"),
    (_packed(gzip.compress(b"no HDF5")), "x.h5.gz: truncated or not"),
    (_packed(gzip.compress(bytes(1 << 26), 1) * 2), "unpacks to more"),
])
def test_a_packed_file_that_is_broken_leaves_no_store(tmp_path, damage, said):
    (tmp_path / "pcam").mkdir()
    write_pcam(tmp_path / "pcam", "train", pixels(4), [0, 1, 1, 0], packed=True)
    damage(tmp_path / "pcam")
    with pytest.raises(InputError, match=said):
        write_store(open_pcam_hdf5(tmp_path / "pcam", output=tmp_path / "store"), tmp_path / "store")
    assert [file.name for file in tmp_path.iterdir()] == ["pcam"]


def test_a_folder_without_pcam_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="expected|no file"):
            open_pcam_hdf5(folder)


def test_published_sizes_and_hashes_are_demanded_where_asked(tmp_path, monkeypatch):
    write_pcam(tmp_path, "valid", pixels(4), [0, 1, 1, 0], packed=True)
    with pytest.raises(InputError, match="valid_x.h5.gz: MD5 .* download it again"):
        open_pcam_hdf5(tmp_path, verify_published=True)
    for axis in "xy":
        file = tmp_path / f"{STEM}valid_{axis}.h5.gz"
        monkeypatch.setitem(PUBLISHED_MD5, file.name, hashlib.md5(file.read_bytes()).hexdigest())
    with pytest.raises(InputError, match="4 labels, 2 of them 1, .* has 32768"):
        open_pcam_hdf5(tmp_path, verify_published=True)
    monkeypatch.setitem(pcam_hdf5.PUBLISHED_COUNT, "valid", 4)
    assert len(open_pcam_hdf5(tmp_path, verify_published=True)) == 4


def test_files_of_valid_under_the_names_of_test_are_called_so(tmp_path, monkeypatch):
    """As by the README of PCam, whose hashes of valid and test are exchanged."""
    write_pcam(tmp_path, "test", pixels(4), [0, 1, 1, 0], packed=True)
    x = tmp_path / f"{STEM}test_x.h5.gz"
    monkeypatch.setitem(PUBLISHED_MD5, f"{STEM}valid_x.h5.gz", hashlib.md5(x.read_bytes()).hexdigest())
    with pytest.raises(InputError, match=f"that is the published {STEM}valid_x.h5.gz, rename it"):
        open_pcam_hdf5(tmp_path, verify_published=True)


def test_the_published_hashes_are_those_of_torchvision_not_of_the_readme():
    assert PUBLISHED_MD5[f"{STEM}test_x.h5.gz"] == "d8c2d60d490dbd479f8199bdfa0cf6ec"
    assert PUBLISHED_MD5[f"{STEM}valid_x.h5.gz"] == "d5b63470df7cfa627aeec8b9dc0c066e"
    assert len(set(PUBLISHED_MD5.values())) == 9


# Kaggle

def test_kaggle_keeps_the_order_of_its_table_and_sorts_the_unlabelled(tmp_path):
    x, y = pixels(5), [1, 0, 0, 1, 1]
    names = write_kaggle(tmp_path, x, y)
    (tmp_path / "test").mkdir()
    for name, image in zip("ba", pixels(2, seed=1), strict=True):
        Image.fromarray(image).save(tmp_path / "test" / f"{name}.tif")
    images, labels, ids, slides, parts = read(open_kaggle(tmp_path))
    np.testing.assert_array_equal(images, np.concatenate([x, pixels(2, seed=1)[::-1]]))
    assert labels.tolist() == [*y, -1, -1]
    assert ids.tolist() == [*names, "a", "b"]
    assert parts.tolist() == ["train"] * 5 + ["test"] * 2 and set(slides) == {""}


def test_hdf5_and_kaggle_of_the_same_patches_give_the_same_bytes(tmp_path):
    x, y = pixels(6), [0, 1, 1, 0, 1, 0]
    (tmp_path / "pcam").mkdir()
    write_pcam(tmp_path / "pcam", "train", x, y)
    write_kaggle(tmp_path / "kaggle", x, y)
    one = write_store(open_pcam_hdf5(tmp_path / "pcam"), tmp_path / "one")
    two = write_store(open_kaggle(tmp_path / "kaggle"), tmp_path / "two")
    for name in ("images", "labels", "slides", "parts", "digests"):
        assert (one.path / f"{name}.npy").read_bytes() == (two.path / f"{name}.npy").read_bytes(), name


@pytest.mark.parametrize("part", ["train", "valid"])
def test_real_patches_give_the_same_bytes_through_both_layouts(tmp_path, real_patches, part):
    stores = {}
    for layout, opened in (("hdf5", open_pcam_hdf5), ("kaggle", open_kaggle)):
        subprocess.run([sys.executable, real_patches / "materialize.py", "--layout", layout, "--split", part,
                        "--limit", "40", "--out", tmp_path / layout], check=True, capture_output=True)
        stores[layout] = write_store(opened(tmp_path / layout), tmp_path / f"{layout}-store")
        assert stores[layout].labels.sum() == 20
    for name in ("images.npy", "labels.npy", "digests.npy"):
        assert stores["hdf5"].manifest["sha256"][name] == stores["kaggle"].manifest["sha256"][name]


def test_original_kaggle_files_are_read(real_patches):
    images, labels, ids, _, parts = read(open_kaggle(real_patches / "kaggle"))
    assert images.shape == (15, 96, 96, 3) and len(np.unique(images.reshape(15, -1), axis=0)) == 15
    assert labels.tolist() == [1, 0, 0, 0, 0] + [-1] * 10
    assert ids[0] == "00001b2b5609af42ab0ab276dd4cd41c3e7745b5" and parts[5] == "test"


def _save(name, array, **options):
    return lambda folder: Image.fromarray(array).save(folder / name, **options)


def _labels(*rows, header="id,label"):
    return lambda folder: (folder / "train_labels.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.mark.parametrize(("damage", "said"), [
    (_labels("a,1", "b,1"), "line 3: id 'b', but there is no such .tif"),
    (_labels("../secret,1"), "line 2: id '../secret'"),
    (_labels("a,2"), "line 2: label '2', expected 0 or 1"),
    (_labels("a,"), "line 2: label ''"),
    (_labels("a,1,9"), "line 2: not 2 fields"),
    (_labels("a,1", header="name,label"), "no column 'id'"),
    (lambda folder: (folder / "train_labels.csv").unlink(), "train_labels.csv: no such file"),
    (lambda folder: (folder / "train_labels.csv").write_bytes(b"id,label\n\xff,1\n"), "not readable"),
    (_labels("a,1", "a,1"), "'a' is empty or occurs twice"),
    (_save("train/a.tif", np.zeros((96, 96), np.uint8)), "a.tif: a L image"),
    (_save("train/a.tif", np.zeros((96, 96, 4), np.uint8)), "a RGBA image"),
    (_save("train/a.tif", np.zeros((96, 95, 3), np.uint8)), "of 95x96, expected 8-bit RGB of 96x96"),
    (_save("train/a.tif", np.zeros((30_000, 4, 3), np.uint8)), "of 4x30000"),
    (_save("train/a.tif", np.zeros((96, 96, 3), np.uint8), format="GIF"), "not a whole TIFF"),
    (_truncate("train/a.tif"), "a.tif: not a whole TIFF"),
    (lambda folder: (folder / "train" / "a.tif").write_bytes(b""), "a.tif: not a whole TIFF"),
])
def test_kaggle_that_is_not_kaggle_is_refused_and_leaves_no_store(tmp_path, damage, said):
    folder = tmp_path / "kaggle"
    (folder / "train").mkdir(parents=True)
    Image.fromarray(pixels(1)[0]).save(folder / "train" / "a.tif")
    Image.fromarray(pixels(1)[0]).save(tmp_path / "secret.tif")
    _labels("a,1")(folder)
    write_store(open_kaggle(folder), tmp_path / "before")
    damage(folder)
    with pytest.raises(InputError, match=said):
        write_store(open_kaggle(folder), tmp_path / "store")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["before", "kaggle", "secret.tif"]


def test_an_empty_folder_is_not_kaggle(tmp_path):
    with pytest.raises(InputError, match="neither train_labels.csv"):
        open_kaggle(tmp_path)


# Image folder

def test_a_folder_gives_what_its_table_knows(tmp_path):
    (tmp_path / "deep").mkdir()
    x = pixels(3)
    for name, image in zip(("a.png", "deep/b.bmp", "c.tif"), x, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("file,label,slide,split,id\nc.tif,1,s1,valid,third\na.png,,,,\n"
                                         "deep/b.bmp,0,s1,,\n")
    images, labels, ids, slides, parts = read(open_folder(tmp_path))
    np.testing.assert_array_equal(images, x[[2, 0, 1]])
    assert labels.tolist() == [1, -1, 0]
    assert ids.tolist() == ["third", "a.png", "deep/b.bmp"]
    assert slides.tolist() == ["s1", "", "s1"] and parts.tolist() == ["valid", "test", "train"]


def test_a_folder_may_have_its_table_elsewhere(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels(1)[0]).save(tmp_path / "images" / "a.png")
    (tmp_path / "table.csv").write_text("\ufefffile,label\na.png,1\n", encoding="utf-8")
    assert len(open_folder(tmp_path / "images", tmp_path / "table.csv")) == 1


@pytest.mark.parametrize(("row", "said"), [
    ("../a.png,1,", "'../a.png' leads out"),
    ("/etc/passwd,1,", "leads out"),
    ("b.png,1,", "no file 'b.png'"),
    ("a.png,1,training", "split 'training', expected train, valid, test"),
    ("a.png,yes,", "label 'yes'"),
])
def test_a_bad_row_of_a_folder_is_named(tmp_path, row, said):
    Image.fromarray(pixels(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(f"file,label,split\na.png,1,\n{row}\n")
    with pytest.raises(InputError, match=f"labels.csv, line 3: .*{said}"):
        open_folder(tmp_path)


def test_sixteen_bits_a_colour_are_refused_not_cut(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 96, 96, 16, 2, 0, 0, 0)  # 16 bits, RGB
    rows = zlib.compress(bytes(96 * (1 + 96 * 6)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "labels.csv").write_text("file,label\na.png,1\n")
    with pytest.raises(InputError, match="a 16-bit RGB image"):
        read(open_folder(tmp_path))
