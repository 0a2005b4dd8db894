"""A study of one small network: planned, made, stopped, gone on with and compared, as a user runs it."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """import tiny

def get_config():
    tiny.register()
    return tiny.config("", epochs=1)
"""
RUNS = ("histogram_svm_by_slide_seed0", "small_by_slide_seed0", "small_svm_by_slide_seed0")
TIMED = ("train", "test, ms", "training", "ms an image", "hours", "kWh", "CO2", "time")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store whose test part is not labelled throughout, and a network that processes of their own know too."""
    place = tmp_path_factory.mktemp("study")
    (place / "small.py").write_text(CONFIG)
    tiny.write_noise(place / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))
        patch.chdir(ROOT)
        yield place


def arguments(place: Path, workdir: Path) -> list[str]:
    network = place / "small.py"
    return [f"--data={place / 'store'}", f"--workdir={workdir}", f"--networks={network}", f"--features_of={network}",
            "--classical=svm", "--splits=official,by_slide"]


def tables(workdir: Path) -> dict[str, list[list[str]]]:
    """The cells of all tables, but for columns of times."""
    found = {}
    for file in sorted((workdir / "comparison" / "by_slide" / "tables").glob("*.csv")):
        rows = list(csv.reader(file.read_text().splitlines()))
        kept = [number for number, title in enumerate(rows[0]) if not any(word in title for word in TIMED)]
        found[file.stem] = [[row[number] for number in kept] for row in rows]
    return found


def predictions(workdir: Path) -> dict[str, bytes]:
    files = sorted(workdir.glob("runs/*/predictions/*.npz"))
    return {str(file.relative_to(workdir)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(place, job):
    """The study without interruption, and how it ended."""
    return place / "whole", job("reproduce", *arguments(place, place / "whole"))


def test_a_study_is_planned_made_and_compared(whole):
    workdir, ended = whole
    assert ended.code == 0, ended
    for said in ("3 runs; the log of each lies in", "left out: official: ", "4 of 25 patches have no label",
                 *(f"{name}: to do" for name in RUNS), f"[1 of 3] {RUNS[0]}: done", "2 left, about",
                 f"by_slide, 3 runs: {workdir / 'comparison' / 'by_slide' / 'comparison.html'}"):
        assert said in ended.out, said
    assert {path.name for path in (workdir / "runs").iterdir()} == set(RUNS)
    for name in RUNS:
        run = workdir / "runs" / name
        for file in ("record.json", "report.html", "evaluation/valid.json", "evaluation/test.json"):
            assert (run / file).is_file(), file
        assert (run / "explanations" / "test.npz").is_file() == (name == "small_by_slide_seed0")
        assert json.loads((run / "evaluation" / "test.json").read_text())["cost"]["test_ms_per_image"] > 0
        assert isinstance(json.loads((run / "evaluation" / "test.json").read_text())["assessment"]["choices"], dict)
    assert set(RUNS) <= {cell for row in tables(workdir)["table_runs"] for cell in row}


def test_what_is_done_is_kept_and_what_is_missing_is_made(whole, place, job):
    workdir = shutil.copytree(whole[0], place / "damaged")
    network, before, scored = workdir / "runs" / RUNS[1], tables(workdir), predictions(workdir)
    record = (network / "record.json").read_bytes()
    (network / "evaluation" / "test.json").unlink()
    (network / "predictions" / "test.npz").unlink()
    shutil.rmtree(workdir / "runs" / RUNS[0])
    # Features are named by the network's variables, wherever it lies.
    ended = job("reproduce", *arguments(place, workdir))
    assert ended.code == 0, ended
    for name, state in zip(RUNS, ("to do", "begun", "done"), strict=True):
        assert f"{name}: {state}\n" in ended.out
    assert (network / "record.json").read_bytes() == record
    assert tables(workdir) == before and predictions(workdir) == scored


def test_one_failure_costs_no_other_run(whole, place, job):
    workdir = shutil.copytree(whole[0], place / "failing")
    network = workdir / "runs" / RUNS[1]
    config = json.loads((network / "config.json").read_text())
    (network / "config.json").write_text(json.dumps(config | {"batch_size": 4}))
    for name in (RUNS[0], RUNS[2]):
        (workdir / "runs" / name / "report.html").unlink()
    ended = job("reproduce", *arguments(place, workdir))
    assert ended.refusal().startswith(f"error: 2 of this study failed: {RUNS[1]}, {RUNS[2]}; why stands above")
    for said in (f"{RUNS[1]}: FAILED: {network / 'config.json'}: this folder holds a run with batch_size = 4",
                 f"{RUNS[0]}: done", f"{RUNS[2]}: FAILED: it needs {RUNS[1]}, which failed", "by_slide, 1 runs"):
        assert said in ended.out, said
    assert (workdir / "runs" / RUNS[0] / "report.html").is_file()


def test_a_run_that_fails_says_why_in_a_line(place, job):
    ended = job("reproduce", *arguments(place, place / "wrong"), "--config.optimizer.schedule.learning_rate=1e30",
                "--features_of=")
    assert "[2 of 2] small_by_slide_seed0: FAILED: step 8: the loss is" in ended.out, ended
    assert ended.refusal().startswith("error: 1 of this study failed: small_by_slide_seed0")


@pytest.mark.parametrize(("more", "said"), [
    (["--data="], "--data is missing"), (["--classical=tree"], "--classical: 'tree' is not known; choose of knn, svm"),
    (["--splits=mine"], "--splits: 'mine' is not known"), (["--seeds=0,x"], "--seeds=0,x: expected whole numbers"),
    (["--networks=lenet", "--features_of="], "configs/lenet.py: no such file"),
    (["--features_of=vgg19"], "is none of --networks="),
    (["--splits=official"], "there is nothing to do: official: "), (["--only=x"], "is not in the plan; choose one of"),
    (["--folds=2"], "fold 1 of 2: expected at least 3 folds")])
def test_what_cannot_be_done_is_refused_at_once(place, job, more, said):
    assert said in job("reproduce", *arguments(place, place / "refused"), *more).refusal()


def test_folds_are_runs_of_one_comparison(place):
    from experiments.study import divisions, plan
    from pcamjax.data.store import Patches
    made, _ = divisions(Patches.open(place / "store"), ["by_slide"], 3)
    assert [division.name for division in made] == [f"by_slide_fold{fold}of3" for fold in (1, 2, 3)]
    assert {division.group for division in made} == {"by_slide_3_folds"}
    assert len({division.split.part("test").tobytes() for division in made}) == 3
    assert plan(place, "", made, networks=[], classical=[], features_of="", seeds=[0], overrides={}) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_point_and_started_again_a_study_ends_with_the_same_tables(whole, place, job, seed):
    workdir = place / f"killed{seed}"
    command = [sys.executable, "-m", "experiments.reproduce", *arguments(place, workdir)]
    draw, kills = random.Random(seed), 0
    while kills < 3:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(3, 25))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)  # and not its child, which has to notice
        process.wait()
        kills += 1
    assert kills, "ended before it could be killed"
    ended = job("reproduce", *arguments(place, workdir))
    assert ended.code == 0, ended
    assert predictions(workdir) == predictions(whole[0]) and tables(workdir) == tables(whole[0])
