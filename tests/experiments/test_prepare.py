"""The job that converts: what it prints, writes and refuses."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from absl.flags import FLAGS
from absl.testing import flagsaver
from PIL import Image

from pcamjax.data.store import Patches
from pcamjax.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepare():
    """Runs the job in this process, with flags by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections loads a configuration
        import experiments.prepare as job

    def run(**values):
        with flagsaver.flagsaver():
            FLAGS(["prepare", *[f"--{name}={value}" for name, value in values.items()]])
            job.run()

    return run


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve images, the last a copy of the first in another part and with another label."""
    images = np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), np.uint8)
    images[11] = images[0]
    rows = ["file,label,slide,split"]
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
        rows.append(f"{i}.png,{i % 2},s{i // 4},{'train' if i < 8 else 'test'}")
    (tmp_path / "images" / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "images"


def test_a_folder_becomes_a_store_with_its_report(prepare, folder, tmp_path, capsys):
    store = tmp_path / "stores" / "mine"
    prepare(source="folder", input=folder, output=store)
    printed, progress = capsys.readouterr()
    assert "train: 8 patches, 4 metastasis, 4 healthy, 0 unlabelled, slides: 2\n" in printed
    assert "1 of 12 patches repeat another exactly (none within a part; 1 in both train, test)" in printed
    assert f"store: {store}\nreport: {store}/report/index.html\n" in printed
    assert "images/s" in progress
    Patches.open(store).verify()
    duplicates = json.loads((store / "report" / "duplicates.json").read_text())
    assert duplicates["across"] == {"train, test": 1} and duplicates["examples"] == [["0.png", "11.png"]]
    assert (store / "report" / "index.html").is_file()


def test_bad_input_is_one_line_and_exit_code_2_and_leaves_what_is_there(tmp_path):
    (tmp_path / "store").mkdir()
    command = [sys.executable, "-m", "experiments.prepare", "--source=kaggle", f"--input={tmp_path}",
               f"--output={tmp_path / 'store'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (f"error: {tmp_path / 'store'}: exists already; choose another output or remove it "
                           "first\n")


@pytest.mark.parametrize(("flags", "said"), [
    ({}, "--source and --output are needed; sources are pcam, kaggle"),
    ({"source": "pcam", "output": "new"}, "--input is missing; name the folder of the pcam data"),
    ({"source": "kaggle", "output": "new", "input": "."}, "neither train_labels.csv"),
    ({"source": "synthetic", "output": "new", "counts": "10,ten,10"}, "--counts=10,ten,10: expected three"),
    ({"source": "download", "output": "new", "input": "pcam", "base_url": "http://127.0.0.1:9"}, "reached"),
])
def test_flags_that_do_not_fit_say_why_and_write_nothing(prepare, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        prepare(**flags)
    assert not (tmp_path / "new").exists()


def test_a_report_that_was_cut_short_is_made_and_the_store_stays(prepare, tmp_path, capsys):
    flags = {"source": "synthetic", "counts": "24,0,8", "output": tmp_path / "store"}
    prepare(**flags)
    before = {file: file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="store: exists already"):
        prepare(**flags)
    (tmp_path / "store" / "report" / "index.html").unlink()
    for other in ({"counts": "24,8,8"}, {"seed": 1}):
        with pytest.raises(InputError, match="store: exists already"):
            prepare(**flags | other)
    prepare(**flags)
    assert "store: converted before, only its report is made" in capsys.readouterr().out
    assert before == {file: file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file()}


def test_synthetic_patches_need_no_input(prepare, tmp_path):
    prepare(source="synthetic", counts="24,0,8", seed=3, output=tmp_path / "store")
    parts = Patches.open(tmp_path / "store").manifest["parts"]
    assert {part: counts["count"] for part, counts in parts.items()} == {"train": 24, "test": 8}
