"""Kills jobs at random moments and compares what they end with to what they make when left alone.

    python tests/faults/campaign.py --folder=build/faults --kills=200 --seconds=400

A trial takes a store, a run and an evaluation through `experiments.prepare`, `train` and `evaluate`, each killed a few
times and started again by the same command, and compares the bits of all three with the reference's. The network is
tests/tiny.py's, with a checkpoint at every step. Moments come from --seed: most lie evenly over the time that a job
takes, the others where it is writing. What was done stands in <folder>/log.jsonl: a call goes on from there, begins no
trial after --seconds, prints what was found so far, and exits with 1 if work was lost or bits differ.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
JOBS = {"prepare": 2, "train": 5, "evaluate": 2}  # and how often each is killed in a trial
AIMED, TERMINATED = 0.4, 0.2  # the shares that are killed while they write, and by SIGTERM
TIMES = ("seconds", "valid_seconds", "images_per_second")
STOPPED = 75
CONFIG = """import tiny

def get_config():
    tiny.register()
    return tiny.config("", checkpoint_every=1)
"""


class Place:
    """Where a trial's store and run lie."""

    def __init__(self, path: Path):
        self.path, self.store, self.run = path, path / "store", path / "run"

    def arguments(self, job: str) -> list[str]:
        """A job's command line."""
        run = [f"--workdir={self.run}", f"--config={self.path.parent / 'config.py'}",
               f"--config.data.path={self.store}"]
        return {"prepare": ["--source=synthetic", "--counts=48,20,8", f"--output={self.store}"], "train": run,
                "evaluate": [*run, "--split=valid"]}[job]

    def half_written(self, job: str) -> list[Path]:
        """What the job is writing, which has no name of its own yet."""
        return list({"prepare": self.path.glob(".store.*.tmp"), "train": self.run.glob("checkpoints/*/.*"),
                     "evaluate": self.run.glob("*/.*.tmp")}[job])

    def newest_checkpoint(self) -> int:
        """The step of the newest checkpoint that is as it was written, 0 if there is none."""
        from pcamjax.training.checkpoints import _damage
        return max((int(folder.name) for folder in self.run.glob("checkpoints/last/*")
                    if folder.name.isdecimal() and not _damage(folder)), default=0)


class Process:
    """Work in a forked process, which has all imports already: that saves seconds a start."""

    def __init__(self, work: Callable[[], Any], output: Path):
        self.output, self.code, self.started = output, None, time.monotonic()
        output.write_bytes(b"")  # it may be killed before it opens this
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                with open(output, "wb") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                work()
                code = 0
            except SystemExit as ended:
                code = ended.code or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def running(self) -> bool:
        """Whether it runs; if not, `code` is its exit code or minus the number of the signal that ended it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Waits for its end or until something holds, and says whether it runs."""
        while self.running() and not until():
            time.sleep(0.001)
        return self.code is None

    def said(self) -> str:
        """What it has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def start(job: str, place: Place) -> Process:
    """`python -m experiments.<job>`."""
    def work() -> None:
        from experiments import launch
        sys.argv = [f"experiments/{job}.py", *place.arguments(job)]
        launch.main(importlib.import_module(f"experiments.{job}").run)
    return Process(work, place.path / f"{job}.out")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def results(place: Place) -> dict[str, Any]:
    """What a trial ends with, but for times: every bit of the store, the checkpoints, the log and the evaluation."""
    def print_arrays() -> None:
        import jax
        import numpy as np
        import orbax.checkpoint as ocp
        reader, found = ocp.StandardCheckpointer(), {}
        for folder in sorted(place.run.glob("checkpoints/*/[0-9]*")):
            for item in ("variables", "training"):
                for path, array in jax.tree.leaves_with_path(reader.restore(folder / item)):
                    name = f"{folder.parent.name}/{folder.name}/{item}{jax.tree_util.keystr(path)}"
                    found[name] = hashlib.sha256(np.asarray(array).tobytes()).hexdigest()
        print(json.dumps(found))

    reading = Process(print_arrays, place.path / "arrays.out")
    assert not reading.wait() and reading.code == 0, reading.said()
    epochs = map(json.loads, (place.run / "metrics.jsonl").read_text().splitlines())
    record = json.loads((place.run / "record.json").read_text())
    evaluation = json.loads((place.run / "evaluation" / "valid.json").read_text())
    return {**json.loads(reading.said().splitlines()[-1]),
            **{f"store/{file.name}": sha256(file) for file in place.store.iterdir() if file.is_file()},
            **{f"metrics {line['epoch']}": {key: line[key] for key in line if key not in TIMES} for line in epochs},
            "record": {key: record[key] for key in ("steps", "epochs", "ended", "best", "parameters", "split")},
            "predictions": sha256(place.run / "predictions" / "valid.npz"),
            "evaluation": {key: value for key, value in evaluation.items() if key != "cost"},
            "half-written": sorted(str(file.relative_to(place.path)) for job in JOBS
                                   for file in place.half_written(job) if file.parent.name != "figures")}


def make_reference(folder: Path) -> None:
    """The results of jobs that nobody kills, and the seconds that each takes with its programs compiled."""
    found = []
    for repeat in (1, 2):  # the first compiles; both must end alike, or nothing could be compared with them
        place, seconds = Place(folder / f"reference{repeat}"), {}
        shutil.rmtree(place.path, ignore_errors=True)
        place.path.mkdir()
        for job in JOBS:
            process = start(job, place)
            assert not process.wait() and process.code == 0, process.said()
            seconds[job] = time.monotonic() - process.started
        found.append(results(place))
    assert found[0] == found[1], differences(*found)
    (folder / "reference.json").write_text(json.dumps({"seconds": seconds, "results": found[1]}))


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """The names of what is not the same."""
    return sorted(key for key in left | right if left.get(key) != right.get(key))


def kill_once(job: str, place: Place, seconds: float, draw: random.Random) -> dict[str, Any]:
    """Starts a job and kills it at a moment drawn; says how it went, or how it ended if it was faster."""
    moment, aimed = draw.uniform(0, seconds), draw.random() < AIMED
    number, delay = (signal.SIGTERM if draw.random() < TERMINATED else signal.SIGKILL), draw.uniform(0, 0.2)
    before, left = place.newest_checkpoint() if job == "train" else 0, set(place.half_written(job))

    def writing() -> bool:
        return not left.issuperset(place.half_written(job))

    process = start(job, place)
    runs = process.wait(lambda: time.monotonic() > process.started + moment)
    if runs and aimed and process.wait(writing):
        due = time.monotonic() + delay
        process.wait(lambda: time.monotonic() > due)
    if process.running():
        os.kill(process.pid, number)
    process.wait()
    kill = {"job": job, "signal": number.name, "at": round(time.monotonic() - process.started, 3),
            "code": process.code, "writing": writing(), "wrong": []}
    if process.code not in (0, -number, STOPPED if number == signal.SIGTERM else -number):
        kill["wrong"].append(f"{job} ended with {process.code}: {process.said()[-300:]}")
    if job == "train":
        kill["checkpoint"] = place.newest_checkpoint()
        if kill["checkpoint"] < before:
            kill["wrong"].append(f"checkpoint {before} is lost, the newest is {kill['checkpoint']}")
        kill["wrong"] += went_on(process, before)
        saved = re.search(r"step (\d+) is saved", process.said())
        if saved and int(saved[1]) != kill["checkpoint"]:
            kill["wrong"].append(f"it says that step {saved[1]} is saved, but it is {kill['checkpoint']}")
    return kill


def went_on(process: Process, newest: int) -> list[str]:
    """Whether a training began after the newest checkpoint, if it came so far."""
    if "device(s); began" not in process.said():
        return []
    began = re.search(r"going on after step (\d+)", process.said())
    step = int(began[1]) if began else 0
    return [] if step == newest else [f"went on after step {step}, though {newest} was saved"]


def trial(number: int, seed: int, folder: Path, reference: dict[str, Any]) -> dict[str, Any]:
    """One way from nothing to an evaluation, with kills, and how its results differ from the reference's."""
    place, draw, kills = Place(folder / "trial"), random.Random(f"{seed} {number}"), []
    shutil.rmtree(place.path, ignore_errors=True)
    place.path.mkdir()
    wrong = []
    for job, times in JOBS.items():
        for _ in range(times):
            kills.append(kill_once(job, place, reference["seconds"][job], draw))
            wrong += kills[-1].pop("wrong")
            if kills[-1]["code"] == 0:
                kills.pop()
                break
            if job == "prepare" and (place.store / "report" / "index.html").exists():
                break  # killed when all was there; started again it would only say so
        else:
            process = start(job, place)
            process.wait()
            if process.code:
                wrong.append(f"{job}, started again, ended with {process.code}: {process.said()[-300:]}")
                return {"trial": number, "kills": kills, "lost": wrong, "different": []}
    return {"trial": number, "kills": kills, "lost": wrong,
            "different": differences(reference["results"], results(place))}


def summary(trials: list[dict[str, Any]]) -> str:
    """What was found so far, as Markdown."""
    kills = [kill for trial in trials for kill in trial["kills"]]
    rows = ["| job | kills | by SIGKILL | by SIGTERM | of them while it wrote |", "|---|---|---|---|---|"]
    for job in (*JOBS, "all"):
        own = [kill for kill in kills if job in (kill["job"], "all")]
        by = Counter(kill["signal"] for kill in own)
        rows.append(f"| {job} | {len(own)} | {by['SIGKILL']} | {by['SIGTERM']} | {sum(k['writing'] for k in own)} |")
    found = {name: [f"trial {trial['trial']}: {what}" for trial in trials for what in trial[name]]
             for name in ("lost", "different")}
    return "\n".join([*rows, "", f"{len(trials)} trials compared with the reference: {len(found['lost'])} lost, "
                      f"{len(found['different'])} different", *found["lost"], *found["different"]])


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--folder", type=Path, default=ROOT / "build" / "faults")
    flags.add_argument("--kills", type=int, default=200)
    flags.add_argument("--seconds", type=float, default=float("inf"))
    flags.add_argument("--seed", type=int, default=0)
    asked, began = flags.parse_args(), time.monotonic()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
                   "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    (folder / "config.py").write_text(CONFIG)
    for name in ("tiny", *(f"experiments.{job}" for job in JOBS)):
        importlib.import_module(name)
    log = folder / "log.jsonl"
    if not (folder / "reference.json").exists():
        log.unlink(missing_ok=True)
        make_reference(folder)
    reference = json.loads((folder / "reference.json").read_text())
    trials = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    while sum(len(trial["kills"]) for trial in trials) < asked.kills and time.monotonic() < began + asked.seconds:
        trials.append(trial(len(trials), asked.seed, folder, reference))
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(trials[-1]) + "\n")
    print(summary(trials))
    sys.exit(any(trial["lost"] or trial["different"] for trial in trials))


if __name__ == "__main__":
    main()
