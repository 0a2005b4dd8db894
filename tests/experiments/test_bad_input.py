"""Every bad input as a user meets it: exit code 2, one line that says what to do, and all files as they were."""

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image

from pcamjax.data.sources.pcam_hdf5 import STEM
from pcamjax.files import write_json

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def refused(job, place):
    """Runs a job that must be refused its input, and returns its line; no file may have changed."""
    def run(name: str, *flags: str, watched: Path = place) -> str:
        before = contents(watched)
        line = job(name, *(flag.format(place=place) for flag in flags)).refusal()
        assert contents(watched) == before, "files changed"
        return line
    return run


TRAIN = ("--workdir={place}/new", "--config={place}/config.py", "--config.data.path={place}/store")
AGAIN = ("--workdir={place}/run", "--config={place}/config.py", "--config.data.path={place}/store")
RUN = ("--workdir={place}/run", "--config.data.path={place}/store")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


def matches(pattern: str, line: str) -> bool:
    assert re.search(pattern, line), line
    return True


def save(file: Path, array) -> None:
    file.unlink(missing_ok=True)
    np.save(file, array)


# Flags and configuration

@pytest.mark.parametrize(("job_name", "flags", "said"), [
    ("train", (*TRAIN, "--config.foo=1"), "--config.foo: .*config.py has no such key; its keys are .*, model.name, "),
    ("train", (*TRAIN, "--config.model.nam=x"), "--config.model.nam: .* has no such key; the closest are model.name"),
    ("train", (*TRAIN, "--config.learning_rate=1"), "the closest are optimizer.schedule.learning_rate"),
    ("train", (*TRAIN, "--noconfig.augmentation.flip"), "augmentation.flip: .* closest are .*augmentation.flips"),
    ("train", (*TRAIN, "--config.epochs=ten"), "--config.epochs=ten: invalid literal for int"),
    ("train", (*TRAIN, "--config.model=3"), "--config.model=3: .*not a dict"),
    ("train", (*TRAIN, "--config.model.name=scratch9"), "network 'scratch9' is not known; choose one of scratch1, "),
    ("train", (*TRAIN, "--config.optimizer.name=sdg"), "'sdg'.* sgd"),
    ("train", (*TRAIN, "--config.optimizer.schedule.name=const"), "'const'.* constant"),
    ("train", (*TRAIN, "--config.loss.name=hinge"), "'hinge'.* binary_crossentropy"),
    ("train", (*TRAIN, "--config.parallel.wrapper=vmap"), "parallel.wrapper 'vmap' is not known; choose shard_map or"),
    ("train", (*TRAIN, "--config.parallel.devices=5"), "devices 5: this machine has 4; choose at most that"),
    ("train", (*TRAIN, "--config.batch_size=49"), "batch_size 49 is larger than the 48 patches"),
    ("train", ("--workdir={place}/new", "--config={place}/none.py"), "--config=.*none.py: no such file; choose one of"),
    ("train", ("--workdir={place}/new", "--config", "{place}/none.py"), "--config=.*none.py: no such file"),
    ("train", ("--workdir={place}/new",), "config.data.path is empty; name a store made by experiments.prepare"),
    ("train", TRAIN[1:], "--workdir is missing; name the folder of the run"),
    ("train", (*TRAIN, "--worksir=x"), "Unknown command line flag 'worksir'. Did you mean: workdir"),
    ("train", (*TRAIN, "stray"), "argument 'stray' is not a flag; write --name=value"),
    ("evaluate", (*RUN, "--checkpoint=first"), "--checkpoint=first: value should be one of <last.best>"),
    ("evaluate", (*RUN, "--split=all"), "--split=all: value should be one of <train.valid.test>"),
    ("explain", (*RUN, "--num=0"), "--num=0"),
    ("explain", (*RUN, "--split=valid", "--layers=block9_conv1"), "layer 'block9_conv1'.*block1_conv1"),
    ("explain", (*RUN, "--split=valid", "--methods=gradcam"), "method 'gradcam': choose one of grad_cam, "),
    ("explain", (*RUN, "--split=valid", "--methods="), "--methods=: choose of grad_cam, .* or all"),
    ("explain", (*RUN, "--split=valid", "--compare", "--stages=1"), "1 stages: expected 2 or more"),
    ("explain", (*RUN, "--split=valid", "--layers=logits"), "layer 'logits' puts out shape .*choose an earlier one"),
    ("evaluate", ("--workdir={place}/none",), "none: no run .no config.json.; train first: python -m experiments"),
])
def test_flags_that_cannot_be_met(refused, job_name, flags, said):
    assert matches(said, refused(job_name, *flags))


def test_a_configuration_that_is_not_python(refused, place):
    (place / "config.py").write_text("def get_config(:\n")
    assert "config.py" in refused("train", *TRAIN)
    (place / "config.py").write_text("def get_config():\n    return undefined\n")
    assert "config.py: NameError: name 'undefined' is not defined" in refused("train", *TRAIN)
    (place / "config.py").write_text("import tiny\n")
    assert "get_config" in refused("train", *TRAIN)


# The run folder

def test_a_workdir_of_another_configuration(refused, place):
    line = refused("train", *AGAIN, "--config.seed=7")
    assert f"{place}/run/config.json: this folder holds a run with seed = 0, asked for is 7; choose another" in line


def test_a_workdir_that_is_no_run(refused, place):
    (place / "new").mkdir()
    (place / "new" / "thesis.txt").write_text("years of work")
    assert f"{place}/new: is not empty and no run's folder" in refused("train", *TRAIN)
    shutil.rmtree(place / "new")
    (place / "new").write_text("a file")
    assert f"{place}/new: is not empty and no run's folder" in refused("train", *TRAIN)


@pytest.mark.parametrize("job_name", ["evaluate", "predict", "explain"])
def test_a_checkpoint_of_another_network(refused, place, job_name):
    said = f"{place}/run: holds a checkpoint of 'tiny', asked for is 'scratch2'; choose the run's own"
    assert said in refused(job_name, f"--config={ROOT}/configs/scratch2.py", *RUN)
    assert said in refused(job_name, *RUN, "--config.model.name=scratch2")
    config = json.loads((place / "run" / "config.json").read_text())
    config["model"]["name"] = "scratch1"  # as if the folders of two runs had been mixed
    write_json(place / "run" / "config.json", config)
    assert matches("run/checkpoints/last/12/variables: a checkpoint of another network, .* is .* there and .* in this "
                   "one; use the configuration it was written with", refused(job_name, *RUN))


@pytest.mark.parametrize(("content", "said"), [
    ('{"model": {', "config.json: not a configuration; restore it or train again"),
    ("[1]", "config.json: not a configuration; restore it or train again"),
])
def test_a_damaged_configuration_of_a_run(refused, place, content, said):
    (place / "run" / "config.json").write_text(content)
    assert said in refused("evaluate", *RUN)
    assert said in refused("train", *AGAIN)


@pytest.mark.parametrize("part", ["variables", "training", "progress"])
@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "missing"])
def test_a_damaged_checkpoint(refused, place, part, damage):
    largest = max((file for file in (place / "run" / "checkpoints" / "last" / "12" / part).rglob("*")
                   if file.is_file()), key=lambda file: file.stat().st_size)
    damage(largest)
    for name, flags in (("evaluate", RUN), ("train", AGAIN)):
        line = refused(name, *flags)
        assert f"{largest}: {'damaged' if damage is cut else 'missing'}" in line and "restore it, use the other" in line


def test_no_checkpoint(refused, place):
    shutil.rmtree(place / "run" / "checkpoints" / "best")
    assert "checkpoints/best: no checkpoint; train first" in refused("evaluate", *RUN, "--checkpoint=best")


@pytest.mark.parametrize(("file", "job_name", "flags"), [
    ("predictions/valid.npz", "explain", ("--split=valid", "--checkpoint=best")),
    ("evaluation/valid.json", "evaluate", ()),
    ("explanations/valid.npz", "evaluate", ()),
    ("metrics.jsonl", "evaluate", ()),
    ("record.json", "evaluate", ()),
])
def test_a_damaged_result_is_named(job, place, file, job_name, flags):
    """The report reads all results: it names the damaged one and the page of before stays."""
    if file == "metrics.jsonl":
        (place / "run" / file).write_text("epoch 1: fine\n")
    else:
        cut(place / "run" / file)
    page = (place / "run" / "report.html").read_bytes()
    split = () if job_name == "explain" else ("--split=train",)
    line = job(job_name, *(flag.format(place=place) for flag in RUN), *flags, *split).refusal()
    assert f"{place}/run/{file}: " in line
    assert (place / "run" / "report.html").read_bytes() == page


# The store

def not_a_store(store: Path) -> None:
    shutil.rmtree(store)


@pytest.mark.parametrize(("damage", "said"), [
    (not_a_store, "store: no store .no manifest.json.; make one: python -m experiments.prepare"),
    (lambda store: cut(store / "images.npy"), "images.npy: missing or truncated .*prepare the data again"),
    (lambda store: (store / "labels.npy").unlink(), "labels.npy: missing or truncated .*prepare the data again"),
    (lambda store: cut(store / "ids.npy"), "ids.npy: missing or truncated .*prepare the data again"),
    (lambda store: cut(store / "manifest.json"), "manifest.json: not readable as JSON .*restore it or make it again"),
    (lambda store: write_json(store / "manifest.json", {"format": "zip"}), "manifest.json: no manifest of a pcamjax"),
    (lambda store: save(store / "labels.npy", np.zeros(92, np.int8)), r"labels.npy: int8 \[92\], but .* i1 \[93\]"),
    (lambda store: save(store / "labels.npy", np.zeros(93)), r"labels.npy: float64 \[93\], but .* i1 \[93\]"),
    (lambda store: save(store / "images.npy", np.zeros((93, 96, 96), np.uint8)), r"images.npy: uint8 \[93, 96, 96\], "),
])
@pytest.mark.parametrize(("job_name", "flags"), [("train", TRAIN), ("predict", RUN)])
def test_a_store_that_is_not_whole(refused, place, job_name, flags, damage, said):
    damage(place / "store")
    assert matches(said, refused(job_name, *flags))


def test_labels_are_missing(refused, place):
    assert matches("4 of 25 patches have no label .*, which training and scoring need; .* only predict",
                   refused("evaluate", *RUN, "--checkpoint=best"))
    rows = [f"{part}_{i},{to}" for part, count, to in (("train", 48, "unused"), ("valid", 20, "valid"),
                                                      ("test", 25, "train")) for i in range(count)]
    (place / "split.csv").write_text("\n".join(["id,split", *rows]) + "\n")
    by_file = ("--config.data.split.name=file", "--config.data.split.file={place}/split.csv")
    assert matches(f"{place}/store: 4 of 45 patches have no label .test_21 is the first., which training and",
                   refused("train", *TRAIN, *by_file))
    assert matches("split 'file' has no part 'test', only train, valid; choose", refused("predict", *RUN, *by_file))
    (place / "split.csv").write_text("id,split\ntrain_0,train\n")
    assert matches("split.csv: 92 patches of .* are not in it", refused("train", *TRAIN, *by_file))


def test_a_split_that_is_not_known(refused):
    assert matches("split 'by_patient' is not known; choose one of official", refused(
        "train", *TRAIN, "--config.data.split.name=by_patient"))


# Sources

def write_pcam(folder: Path, x=None, y=None) -> None:
    folder.mkdir()
    arrays = {"x": np.zeros((4, 96, 96, 3), np.uint8) if x is None else x,
              "y": np.array([0, 1, 0, 1], np.uint8).reshape(-1, 1, 1, 1) if y is None else y}
    for axis, array in arrays.items():
        with h5py.File(folder / f"{STEM}valid_{axis}.h5", "w") as file:
            file[axis] = array


def cut_pcam(folder: Path) -> None:
    write_pcam(folder)
    cut(folder / f"{STEM}valid_x.h5")


def cut_packed_pcam(folder: Path) -> None:
    write_pcam(folder)
    file = folder / f"{STEM}valid_x.h5"
    Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    cut(Path(f"{file}.gz"))


def half_a_pair(folder: Path) -> None:
    write_pcam(folder)
    (folder / f"{STEM}valid_y.h5").unlink()


def unpublished(folder: Path) -> None:
    write_pcam(folder)
    for axis in "xy":
        file = folder / f"{STEM}valid_{axis}.h5"
        Path(f"{file}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()


@pytest.mark.parametrize(("write", "flags", "said"), [
    (cut_pcam, (), "valid_x.h5: truncated or not the HDF5 of PCam"),
    (cut_packed_pcam, (), "valid_x.h5.gz: truncated or not the HDF5 of PCam"),
    (half_a_pair, (), "valid_y.h5: missing, plain or .gz, beside"),
    (unpublished, ("--verify_published",), "valid_x.h5.gz: MD5 .*, but the published file has .*; download it again"),
    (lambda folder: write_pcam(folder, y=np.array([0, 1, 1], np.uint8).reshape(-1, 1, 1, 1)), (),
     "valid_x.h5: 4 images, but 3 labels in its y file; they must be a pair"),
    (lambda folder: write_pcam(folder, x=np.zeros((4, 96, 96, 3), np.float32)), (), "are float32 .4, 96, 96, 3."),
    (lambda folder: write_pcam(folder, x=np.zeros((4, 64, 64, 3), np.uint8)), (), "images are uint8 .4, 64, 64, 3."),
    (lambda folder: write_pcam(folder, x=np.zeros((4, 96, 96, 1), np.uint8)), (), "greyscale, alpha or other sizes"),
    (lambda folder: write_pcam(folder, x=np.zeros((4, 96, 96, 4), np.uint8)), (), "greyscale, alpha or other sizes"),
    (lambda folder: write_pcam(folder, y=np.array([0, 1, 2, 1], np.uint8).reshape(-1, 1, 1, 1)), (),
     "valid_y.h5: label 2 in row 2, expected 0 or 1"),
    (Path.mkdir, (), "no file camelyonpatch_level_2_split_<part>_x.h5"),
    (lambda folder: None, (), "input: no such folder; expected camelyonpatch"),
])
def test_pcam_files_that_are_not_pcam(refused, place, write, flags, said):
    write(place / "input")
    assert matches(said, refused("prepare", "--source=pcam", "--input={place}/input", "--output={place}/made", *flags))
    assert not (place / "made").exists()


@pytest.mark.parametrize(("mode", "label", "said"), [
    ("L", "1", "a.png: a L image of 96x96, expected 8-bit RGB of 96x96; convert or crop it first"),
    ("RGBA", "1", "a.png: a RGBA image of 96x96, expected 8-bit RGB"),
    ("RGB", "2", "labels.csv, line 2: label '2', expected 0 or 1"),
    ("RGB", "-1", "labels.csv, line 2: label '-1', expected 0 or 1"),
])
@pytest.mark.parametrize("layout", ["folder", "kaggle"])
def test_images_and_labels_that_cannot_be_used(refused, place, layout, mode, label, said):
    images = place / "input" / ("train" if layout == "kaggle" else "")
    images.mkdir(parents=True)
    name = "a.tif" if layout == "kaggle" else "a.png"
    Image.new(mode, (96, 96)).save(images / name)
    table, rows = (("train_labels.csv", f"id,label\na,{label}\n") if layout == "kaggle" else
                   ("labels.csv", f"file,label\na.png,{label}\n"))
    (place / "input" / table).write_text(rows)
    line = refused("prepare", f"--source={layout}", "--input={place}/input", "--output={place}/made")
    assert said.replace("a.png", name) in line


# A full disk

@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """A folder on a disk of 1 MB or, where mounting is not allowed, on one that says so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder
        subprocess.run(["umount", "-l", folder], check=True)
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 20, used=0, free=1 << 20))
        yield folder


def test_no_room_for_a_store(job, full_disk):
    line = job("prepare", "--source=synthetic", "--counts=40,0,40", f"--output={full_disk / 'store'}").refusal()
    assert str(full_disk) in line and "free space" in line
    assert not list(full_disk.iterdir())


def test_no_room_for_a_checkpoint(job, place, full_disk):
    line = job("train", f"--workdir={full_disk / 'run'}", f"--config={place / 'config.py'}",
               f"--config.data.path={place / 'store'}").refusal()
    assert matches("run/checkpoints/last: .* GB needed, .* GB free; free space", line)
    assert not list((full_disk / "run" / "checkpoints" / "last").iterdir())


@pytest.mark.parametrize(("job_name", "flags"), [("evaluate", ("--split=train",)), ("predict", ("--split=train",)),
                                                 ("explain", ("--split=valid", "--num=3"))])
def test_no_room_for_results(refused, monkeypatch, job_name, flags):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(np, "savez_compressed", full)
    assert matches("run/[a-z]*/[a-z]*.npz: cannot be written .No space left on device.; free space", refused(
        job_name, *RUN, *flags))


# Processes of their own

def test_a_process_ends_with_code_2_and_one_line(place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "JAX_PLATFORMS": "cpu"}
    (place / "new").mkdir()
    (place / "new" / "thesis.txt").write_text("years of work")
    done = subprocess.run([sys.executable, "-m", "experiments.train", *(flag.format(place=place) for flag in TRAIN)],
                          cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (f"error: {place}/new: is not empty and no run's folder (no config.json); choose another "
                           "workdir\n")
