"""Predictions: what is saved comes back, bit for bit, and nothing else is accepted."""

import csv
import dataclasses
import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from pcamjax.errors import InputError
from pcamjax.inference.predictions import Predictions, read_npz

META = {"model": "scratch1", "split": "official", "leaks_slides": None}


def make(n: int = 50, **changes) -> Predictions:
    rng = np.random.default_rng(7)
    logits = (4 * rng.standard_normal((n, 2))).astype(np.float32)
    values = {
        "ids": np.array([f"valid_{i:06d}" for i in range(n)]),
        "slides": np.array(["slide_1", ""] * (n // 2)),
        "labels": rng.integers(-1, 2, n).astype(np.int8),
        "scores": (1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(np.float32),
        "logits": logits,
        "meta": META,
    }
    return Predictions(**values | changes)


def arrays_of(path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("logits", [True, False])
def test_save_and_load(tmp_path, logits):
    predictions = make() if logits else make(logits=None)
    predictions.save(tmp_path / "a.npz")
    back = Predictions.load(tmp_path / "a.npz")
    assert back.meta == META and len(back) == 50
    for name in ("ids", "slides", "labels", "scores", "logits"):
        saved, loaded = getattr(predictions, name), getattr(back, name)
        assert (saved is None and loaded is None) or (loaded.dtype == saved.dtype and (loaded == saved).all())
    predictions.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


@pytest.mark.parametrize(("change", "message"), [
    ({"scores": np.full(50, 1.5, np.float32)}, r"scores\[0\] is 1.5, expected a number in \[0, 1\]"),
    ({"scores": np.full(50, np.nan, np.float32)}, r"scores\[0\] is nan"),
    ({"scores": np.zeros(49, np.float32)}, r"scores is float32 \[49\], expected float32 \[50\]"),
    ({"scores": np.zeros(50)}, "scores is float64"),
    ({"labels": np.full(50, 2, np.int8)}, r"labels\[0\] is 2, expected -1, 0 or 1"),
    ({"labels": np.zeros(50, np.int64)}, "labels is int64"),
    ({"ids": np.array(["same"] * 50)}, "'same' stands 50 times"),
    ({"ids": np.arange(50)}, r"ids is int64 \[50\], expected text"),
    ({"ids": np.zeros(0, "U3")}, "no patches"),
    ({"logits": np.full((50, 2), np.inf, np.float32)}, r"logits\[0\] is inf"),
    ({"logits": np.zeros((50, 3), np.float32)}, r"expected float32 \[50, 2\]"),
    ({"logits": make().logits[:, ::-1].copy()}, "expected sigmoid"),
    ({"meta": np.array("[1]")}, "meta is list"),
    ({"meta": np.array("{")}, "Expecting property name"),
    ({"format": np.array("pcamjax-predictions 9")}, "not a file of predictions"),
    ({"extra": np.zeros(3)}, "holds extra, ids"),
    ({"scores": None}, "expected ids, labels, logits, meta, scores, slides"),
])
def test_a_wrong_file_is_refused_in_one_line(tmp_path, as_users_call, change, message):
    path = tmp_path / "p.npz"
    make().save(path)
    arrays = {name: array for name, array in (arrays_of(path) | change).items() if array is not None}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        Predictions.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_values_are_refused_when_made():
    with pytest.raises(InputError, match=r"scores\[3\] is -0.25"):
        scores = make().scores.copy()
        scores[3] = -0.25
        make(scores=scores, logits=None)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "p.npz"
    make().save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    for damaged in (b"", b"not a zip", whole[:-30], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="p.npz: not readable as .npz") as caught:
            Predictions.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        Predictions.load(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="not readable"):
        Predictions.load(tmp_path)


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("scores.npy", header.getvalue() + bytes(16))
    with pytest.raises(InputError, match="holds 16 bytes"):
        read_npz(tmp_path / "lie.npz")

    np.savez(tmp_path / "large.npz", scores=np.zeros(4))
    content = (tmp_path / "large.npz").read_bytes()
    size = content.rindex(b"PK\x01\x02") + 24  # where the directory has the uncompressed size
    (tmp_path / "large.npz").write_bytes(content[:size] + b"\xfe\xff\xff\xff" + content[size + 4:])
    with pytest.raises(InputError, match="longer than it can be"):
        read_npz(tmp_path / "large.npz")
    np.savez(tmp_path / "both.npz", labels=np.zeros(4), scores=np.zeros(4))
    content = (tmp_path / "both.npz").read_bytes()
    for size in (content.rindex(b"PK\x01\x02") + 24, content.index(b"PK\x01\x02") + 24):
        content = content[:size] + b"\xfe\xff\xff\xff" + content[size + 4:]
    (tmp_path / "both.npz").write_bytes(content)
    with pytest.raises(InputError, match="unpacked it takes 8589934588 bytes"):
        read_npz(tmp_path / "both.npz")


def test_names_that_would_turn_a_line_around_are_refused(tmp_path):
    np.savez(tmp_path / "p.npz", **{"\u202e": np.zeros(1)})
    with pytest.raises(InputError, match="p.npz: holds an array whose name is no word; make it again"):
        Predictions.load(tmp_path / "p.npz")


def test_a_single_id_that_is_no_list_is_refused(as_users_call):
    with pytest.raises(InputError, match=r"ids is <U1 \[\], expected text \[1\]"):
        Predictions(np.array("a"), np.array([""]), np.zeros(1, np.int8), np.zeros(1, np.float32), None, {})


def test_nothing_is_unpickled(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (64,)})
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("ids.npy", header.getvalue() + pickle.dumps(np.zeros(64, object)).ljust(64 * 8))
    with pytest.raises(InputError, match="Object arrays cannot be loaded"):
        read_npz(tmp_path / "p.npz")


def test_csv_gives_the_same_scores_back(tmp_path):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(40), [0, 1, 1e-38, 1e-12, 0.1, 1 - 2**-24, 1 / 3, 0.5, 1e-45, 0.7]])
    predictions = make(scores=scores.astype(np.float32), logits=None)
    predictions.write_csv(tmp_path / "p.csv")
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == predictions.ids.tolist()
    assert (np.array([row["score"] for row in rows]).astype(np.float32) == predictions.scores).all()


def test_csv_in_the_form_of_kaggle(tmp_path):
    ids, scores = np.array(["0b2ea2a8", 'a,"b']), np.array([0.25, 1], np.float32)
    predictions = make(2, ids=ids, scores=scores, logits=None)
    predictions.write_csv(tmp_path / "p.csv", header=("id", "label"))
    assert (tmp_path / "p.csv").read_bytes() == b'id,label\n0b2ea2a8,0.25\n"a,""b",1.0\n'


def test_meta_keeps_json_and_refuses_nan(tmp_path):
    predictions = dataclasses.replace(make(), meta={"checkpoint": {"step": 3}, "split": "é"})
    predictions.save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").meta == predictions.meta
    assert json.loads(str(arrays_of(tmp_path / "p.npz")["meta"])) == predictions.meta


def test_predictions_need_no_jax():
    code = ("import sys; import pcamjax.inference.predictions, pcamjax.evaluation.metrics; "
            "assert 'jax' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
