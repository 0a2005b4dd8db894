"""Every bad input as a user meets it: exit code 2, one line that says what to do, and all files as they were."""

import contextlib
import errno
import gzip
import json
import os
import re
import resource
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
from pcamjax.training.run import RunFolder

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
    ('{"seed": 99999999999999999999999}', "config.json: not a configuration; restore it or train again"),
    ('{"seed": 0, "model": {"name": 1}}', "config.json: model.name is 1, expected str; restore it or train again"),
])
def test_a_damaged_configuration_of_a_run(refused, place, content, said):
    (place / "run" / "config.json").write_text(content)
    assert said in refused("evaluate", *RUN)
    assert said in refused("train", *AGAIN)


def largest_file(folder: Path) -> Path:
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("part", ["variables", "training", "progress"])
@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "missing"])
def test_a_damaged_checkpoint(job, refused, place, part, damage):
    newest, before = (largest_file(place / "run" / "checkpoints" / "last" / step / part) for step in ("12", "8"))
    damage(newest)
    what = "damaged" if damage is cut else "missing"
    ended = job("predict", *(flag.format(place=place) for flag in RUN))
    assert ended.code == 0 and f"warning: {newest}: {what}, the checkpoint is not as it was written; passed over for " \
        "that of step 8\n" in ended.err
    damage(before)
    for name, flags in (("evaluate", RUN), ("train", AGAIN)):
        line = refused(name, *flags)
        assert f"{newest}: {what}" in line and "nor is any before it; restore it, use the other --checkpoint" in line


def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(job, place):
    newest = largest_file(place / "run" / "checkpoints" / "last" / "12" / "training")
    cut(newest)
    ended = job("train", *(flag.format(place=place) for flag in AGAIN))
    assert ended.code == 0 and "going on after step 8" in ended.out and f"warning: {newest}: damaged" in ended.err
    assert "warning" not in job("predict", *(flag.format(place=place) for flag in RUN)).err


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


def test_a_changed_pixel_is_noticed_where_it_is_asked_for(job, refused, place):
    data = bytearray((place / "store" / "images.npy").read_bytes())
    data[-1] ^= 1
    (place / "store" / "images.npy").write_bytes(bytes(data))
    assert job("predict", *(flag.format(place=place) for flag in RUN)).code == 0
    for name, flags in (("predict", RUN), ("train", TRAIN)):
        assert f"{place}/store/images.npy: changed since it was written" in refused(name, *flags, "--verify")


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


@contextlib.contextmanager
def files_up_to(size: int):
    """A limit on the size of files, which stops a write where a full disk would, and needs no disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1 << 10, 1 << 18])
def test_a_disk_that_fills_up_in_a_conversion(job, tmp_path, size):
    with files_up_to(size):
        line = job("prepare", "--source=synthetic", "--counts=10,0,10", f"--output={tmp_path / 'store'}").refusal()
    assert matches(f"{tmp_path}/.*store.*: cannot be written .*; free space", line)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_in_a_report(refused, place):
    """The predictions fit, the page does not: all that was there stays, and the job can be started again."""
    size = (place / "run" / "report.html").stat().st_size
    shutil.rmtree(place / "run" / "figures")
    for file in ("predictions/valid.npz", "evaluation/valid.json"):
        assert (place / "run" / file).stat().st_size < size / 2, file
    page = (place / "run" / "report.html").read_bytes()
    with files_up_to(size // 2):
        line = refused("evaluate", *RUN, "--split=train", watched=place / "run" / "checkpoints")
    assert matches("run/(figures/.*png|report.html): cannot be written .File too large.; free space", line)
    assert (place / "run" / "report.html").read_bytes() == page and not list((place / "run").rglob("*.tmp"))


# Two jobs in one place

def test_two_jobs_do_not_meet_in_a_run(job, refused, place):
    folder = RunFolder(place / "run")
    with folder.lock("training"):
        assert matches(f"{place}/run: process .* .training since .* is at work there", refused("train", *AGAIN))
        assert job("predict", *(flag.format(place=place) for flag in RUN)).code == 0
    with folder.lock("results"):
        for name in ("evaluate", "predict", "explain"):
            assert matches(f"{place}/run: process .* .results since .* is at work there", refused(
                name, *RUN, "--split=valid"))


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
