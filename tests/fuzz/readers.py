"""Every reader of files from outside, with small whole files to damage and the way in which the jobs read them."""

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import h5py
import jax
import made_predictions
import numpy as np
import optax
import tiny
from PIL import Image
from weights.keras_files import random_layers, renamed, write_legacy, write_numbered

from configs import default
from pcamjax.baselines.classifier_file import load_classifier, save_classifier
from pcamjax.baselines.classifiers import make_classifier, scores
from pcamjax.data.sources.folder import open_folder
from pcamjax.data.sources.kaggle import open_kaggle
from pcamjax.data.sources.pcam_hdf5 import STEM, open_pcam_hdf5
from pcamjax.data.splits import make_split
from pcamjax.data.store import PatchBatch, Patches, Source, write_store
from pcamjax.evaluation.assessment import assess
from pcamjax.evaluation.metrics import evaluation_record, read_evaluation
from pcamjax.explain.explanations import Explanations, read_explanations
from pcamjax.files import write_json
from pcamjax.inference.predictions import Predictions
from pcamjax.report import page
from pcamjax.report.html import Picture
from pcamjax.training.checkpoints import Checkpoints
from pcamjax.training.run import RunFolder
from pcamjax.weights.conversion import read_tensors

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (2, 96, 96, 3), np.uint8)
FLAT = np.repeat(RNG.integers(0, 256, (2, 1, 1, 3), np.uint8), 96 * 96, 1).reshape(2, 96, 96, 3)


class Reader(NamedTuple):
    """`make` fills a folder with whole files and says which are to be damaged, each with other forms it may have.

    `read` reads the folder as a job does, and is told the file that is damaged in it.
    """

    make: Callable[[Path], dict[str, list[bytes]]]
    read: Callable[[Path, str], None]


# Patches

def _convert(source: Source) -> None:
    count = 0
    for batch in source.batches():
        assert isinstance(batch, PatchBatch) and batch.images.dtype == np.uint8
        assert batch.images.shape[1:] == (96, 96, 3) and np.isin(batch.labels, (-1, 0, 1)).all()
        count += len(batch.images)
        batch.images.sum()
    assert count == len(source)


def _hdf5(key: str, values: np.ndarray, libver: str = "earliest", **options) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w", libver=libver) as file:
        file.create_dataset(key, data=values, **options)
    return content.getvalue()


def _make_pcam(folder: Path) -> dict[str, list[bytes]]:
    labels = np.array([0, 1], np.uint8).reshape(-1, 1, 1, 1)
    forms = ({}, {"chunks": True, "compression": "gzip"}, {"chunks": True, "compression": "lzf", "shuffle": True},
             {"libver": "latest"}, {"libver": "latest", "chunks": True, "compression": "gzip", "fletcher32": True})
    files = {}
    for key, values in (("x", FLAT), ("y", labels)):
        files[f"{STEM}valid_{key}.h5"] = [_hdf5(key, values, **form) for form in forms]
    (folder / f"{STEM}valid_meta.csv").write_text("wsi\na\nb\n")
    return files


def _make_packed(folder: Path) -> dict[str, list[bytes]]:
    return {f"{name}.gz": [gzip.compress(form, 1) for form in forms] for name, forms in _make_pcam(folder).items()}


def _read_pcam(folder: Path, _: str) -> None:
    _convert(open_pcam_hdf5(folder, output=folder / "store"))


def _image(kind: str, pixels: np.ndarray = PIXELS[0], **options) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **options)
    return content.getvalue()


def _make_kaggle(folder: Path) -> dict[str, list[bytes]]:
    (folder / "train").mkdir()
    (folder / "train_labels.csv").write_text("id,label\na,1\n")
    packings = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "jpeg", "zstd", "lzma")
    return {"train/a.tif": [*(_image("TIFF", FLAT[0], compression=packing) for packing in packings),
                            _image("TIFF"), _image("TIFF", compression="tiff_lzw"), _image("PNG")]}


def _make_folder(folder: Path) -> dict[str, list[bytes]]:
    forms = {"a.png": [_image("PNG"), _image("PNG", FLAT[0])], "b.bmp": [_image("BMP")],
             "c.jpg": [_image("JPEG"), _image("JPEG", progressive=True), _image("JPEG", FLAT[0], quality=20)],
             "d.tif": [_image("TIFF", FLAT[0], compression="tiff_lzw")]}
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{name},1\n" for name in forms))
    return forms


def _make_tables(folder: Path) -> dict[str, list[bytes]]:
    files = _make_pcam(folder)
    for name, forms in files.items():
        (folder / name).write_bytes(forms[0])
    for name in ("a.png", "train/a.tif", "train/b.tif"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(_image("PNG" if name == "a.png" else "TIFF", FLAT[0]))
    _write_store(folder / "store")
    rows = "".join(f"p{i},{part}\n" for i, part in enumerate(("train", "valid", "test", "unused")))
    meta = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi\n0,7,5,True,False,s1\n1,8,9,True,True,s2\n"
    return {"labels.csv": [b"file,label,slide,split,id\na.png,1,s,train,first\n",
                           "\ufefffile,label\na.png,\n".encode()],
            "train_labels.csv": [b"id,label\na,1\nb,0\n"], f"{STEM}valid_meta.csv": [meta.encode()],
            "split.csv": [f"id,split\n{rows}".encode()]}


def _read_table(folder: Path, name: str) -> None:
    if name == "split.csv":
        make_split(Patches.open(folder / "store"), "file", file=folder / name)
    elif name == "labels.csv":
        _convert(open_folder(folder))
    else:
        _convert(open_kaggle(folder) if name == "train_labels.csv" else open_pcam_hdf5(folder))


# The store

def _write_store(folder: Path) -> Patches:
    class Four:
        name = "four"

        def __len__(self):
            return 4

        def batches(self):
            yield PatchBatch(np.concatenate([PIXELS, FLAT]), np.array([0, 1, 1, -1], np.int8),
                             ["p0", "p1", "p2", "p3"], ["s1", "", "s2", "s2"], ["train", "valid", "test", "test"])
    return write_store(Four(), folder)


def _make_store(folder: Path) -> dict[str, list[bytes]]:
    _write_store(folder / "store")
    return {f"store/{file.name}": [file.read_bytes()] for file in (folder / "store").iterdir()}


def _read_store(folder: Path, _: str) -> None:
    patches = Patches.open(folder / "store")
    split = make_split(patches, "official")
    for part, rows in split.indices.items():
        assert part in ("train", "valid", "test") and len(rows)
        patches.images[rows].sum()
    _ = patches.sha256, [str(name).encode() for names in (patches.ids, patches.slides, patches.parts) for name in names]
    assert all(type(part["count"]) is int for part in patches.manifest["parts"].values())
    patches.verify()


# Results

def _make_predictions(folder: Path) -> dict[str, list[bytes]]:
    files = []
    for made in (made_predictions.predictions([0, 1, 1], margins=[-1.0, 2, 0.5], slides=["a", "a", "b"]),
                 made_predictions.predictions([0, 1, -1], [0.25, 0.5, 1])):
        made.save(folder / "p.npz")
        files.append((folder / "p.npz").read_bytes())
    return {"p.npz": files}


def _read_predictions(folder: Path, name: str) -> None:
    made = Predictions.load(folder / name)
    made.write_csv(folder / "p.csv")
    assert np.isfinite(made.margins).all()


def _explanations() -> Explanations:
    return Explanations(PIXELS, np.zeros((2, 2, 96, 96), np.float32), np.array([[1, 2], [0, 1]], np.float32),
                        np.array(["grad_cam", "occlusion"]), np.array(["a", "b"]), np.array([1, -1], np.int8),
                        np.array([0.25, 1], np.float32), "block3", "metastasis", "last, step 7")


def _make_explanations(folder: Path) -> dict[str, list[bytes]]:
    _explanations().save(folder / "e.npz")
    return {"e.npz": [(folder / "e.npz").read_bytes()]}


def _read_explanations(folder: Path, name: str) -> None:
    read_explanations(folder / name).records()


def _make_run(folder: Path) -> dict[str, list[bytes]]:
    run = RunFolder(folder)
    made = made_predictions.predictions([1, 1, 1, 0], [0.9, 0.8, 0.2, 0.1], split_description="s", leaks_slides=False)
    made.save(run.predictions("test"))
    write_json(run.evaluation("test"), evaluation_record(made) | {"assessment": assess(made)})
    write_json(folder / "config.json", default.get_config().to_dict())
    write_json(folder / "data.json", {"store_sha256": "ab", "split_sha256": "cd"})
    write_json(folder / "environment.json", {"command": ["python", "-m", "experiments.train"],
                                             "packages": {"jax": "0.10.2"}})
    run.write_record({"model": "scratch1", "parameters": {"total": 4549538, "trainable": 4548642}, "steps": 500,
                      "epochs": 2, "ended": "finished", "train_seconds": 90.0, "images_per_second": 177.7,
                      "split": {"name": "by_slide", "description": "s", "leaks_slides": False, "train": 8000},
                      "phases": [{"name": "a", "steps": 2, "trainable": 3, "seconds": 4.0}] * 2,
                      "best": {"metric": "valid_auc", "epoch": 2, "value": 0.875}})
    run.metrics.write_text('{"epoch": 1, "train_loss": 0.7, "valid_loss": null}\n'
                           '{"epoch": 2, "train_loss": 0.6, "valid_loss": 0.5}\n')
    return {str(file.relative_to(folder)): [file.read_bytes()] for file in folder.rglob("*.json*")}


def _read_run(folder: Path, _: str) -> None:
    run = RunFolder(folder)
    config = run.config()
    _ = config.model.name, config.eval_batch_size + 0, config.parallel.devices + 0, run.record(), run.data()
    read_evaluation(run.evaluation("test"))
    page.embed = lambda figure, path, alternative: Picture("data:,", alternative, 1)  # drawing takes most of the time
    page.figures = SimpleNamespace(**{name: lambda *_, **__: None for name in vars(_FIGURES) if name.islower()})
    page.write_report(folder).read_text(encoding="utf-8")


_FIGURES = page.figures


# Weights, classifiers, checkpoints

def _make_weights(folder: Path) -> list[bytes]:
    layers = random_layers("tiny")
    old = write_legacy(folder / "old.h5", renamed(layers)).read_bytes()
    other = write_legacy(folder / "other.h5", renamed(layers), "model_weights", split=True).read_bytes()
    for file in ("old.h5", "other.h5"):
        (folder / file).unlink()
    return [old, other]


def _make_legacy(folder: Path) -> dict[str, list[bytes]]:
    return {"model.h5": _make_weights(folder)}


def _numbered(folder: Path) -> bytes:
    path = write_numbered(folder / "inside.h5", "tiny", random_layers("tiny"))
    content = path.read_bytes()
    path.unlink()
    return content


def _make_numbered(folder: Path) -> dict[str, list[bytes]]:
    return {"model.weights.h5": [_numbered(folder)]}


def _make_archive(folder: Path) -> dict[str, list[bytes]]:
    files = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", compression) as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", _numbered(folder))
        files.append(packed.getvalue())
    return {"model.keras": files}


def _read_weights(folder: Path, name: str) -> None:
    found = read_tensors(folder / name, "tiny")
    assert all(np.isfinite(values).all() for values in found.tensors.values())


FEATURES = RNG.normal(size=(40, 5)).astype(np.float32)
SETTINGS = {"knn": {"n_neighbors": 3}, "svm": {"C": 1.0}, "forest": {"n_estimators": 2}}


def _make_classifier(folder: Path) -> dict[str, list[bytes]]:
    files = []
    for name, settings in SETTINGS.items():
        labels = (FEATURES[:, 0] > 0).astype(np.int8)
        classifier = make_classifier(name, 0, settings, standardise=True).fit(FEATURES, labels)
        save_classifier(classifier, folder / "c.skops")
        files.append((folder / "c.skops").read_bytes())
    return {"c.skops": files}


def _read_classifier(folder: Path, name: str) -> None:
    assert scores(load_classifier(folder / name), FEATURES).shape == (40,)


def _state():
    return tiny.started("tiny", optax.sgd(0.1), 0)


def _make_checkpoint(folder: Path) -> dict[str, list[bytes]]:
    checkpoints = Checkpoints(folder)
    checkpoints.save("last", _state(), {"epochs": []})
    checkpoints.close()
    return {str(file.relative_to(folder)): [file.read_bytes()] for file in folder.rglob("*") if file.is_file()}


def _read_checkpoint(folder: Path, _: str) -> None:
    global _LIKE
    _LIKE = _LIKE or _state()
    checkpoints = Checkpoints(folder)
    try:
        restored, _progress = checkpoints.restore("last", _LIKE)
        jax.block_until_ready(restored.variables)
    finally:
        checkpoints.close()


_LIKE = None

READERS = {
    "pcam_hdf5": Reader(_make_pcam, _read_pcam),
    "pcam_hdf5_gz": Reader(_make_packed, _read_pcam),
    "kaggle_tiff": Reader(_make_kaggle, lambda folder, _: _convert(open_kaggle(folder))),
    "folder_images": Reader(_make_folder, lambda folder, _: _convert(open_folder(folder))),
    "csv_tables": Reader(_make_tables, _read_table),
    "store_npy_json": Reader(_make_store, _read_store),
    "predictions_npz": Reader(_make_predictions, _read_predictions),
    "explanations_npz": Reader(_make_explanations, _read_explanations),
    "run_json": Reader(_make_run, _read_run),
    "keras_legacy_h5": Reader(_make_legacy, _read_weights),
    "keras_weights_h5": Reader(_make_numbered, _read_weights),
    "keras_archive": Reader(_make_archive, _read_weights),
    "classifier_skops": Reader(_make_classifier, _read_classifier),
    "checkpoint_orbax": Reader(_make_checkpoint, _read_checkpoint),
}
