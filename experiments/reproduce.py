"""The whole study of the thesis: all networks and classical models on all splits and seeds, explained and compared."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import launch
from experiments.study import PlannedRun, divisions, plan
from pcamjax.baselines.classifiers import CLASSIFIERS
from pcamjax.data.sources.synthetic import open_synthetic
from pcamjax.data.splits import NAMES
from pcamjax.data.store import Patches, write_store
from pcamjax.errors import InputError
from pcamjax.models.summary import layer_counts
from pcamjax.report.comparison import write_comparison

DATA = flags.DEFINE_string("data", None, "The store with the patches, made by experiments.prepare.")
CLASSICAL = flags.DEFINE_list("classical", list(CLASSIFIERS), "The classifiers on colour histograms and on features.")
FEATURES_OF = flags.DEFINE_string("features_of", "mobilenet", "The network of --networks whose features the "
                                  "classifiers read, too; empty: none's.")
SPLITS = flags.DEFINE_list("splits", ["random_slides_leak", "official", "by_slide"], f"Of {', '.join(NAMES)}; what the "
                           "store does not allow is left out.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds, each of which repeats all runs; splits do not change with them.")
FOLDS = flags.DEFINE_integer("folds", 0, "Folds by slide, at least 3, in the place of one split by slide; 0: one "
                             "split.", lower_bound=0)
EPOCHS = flags.DEFINE_integer("epochs", 0, "Epochs of each network; 0: as its configuration says.", lower_bound=0)
SMOKE = flags.DEFINE_bool("smoke", False, "A small study of synthetic patches, in minutes: proves code, not medicine.")
ONLY = flags.DEFINE_string("only", None, "Make this run of the plan alone, as the study does in a process of its own.")
PARENT = flags.DEFINE_integer("parent", -1, "Of the study's own processes: end when this pipe is closed.")

# What --smoke stands for, where the command says nothing else.
SMOKE_FLAGS = {"networks": ["scratch1", "mobilenet"], "features_of": "", "splits": ["random_slides_leak", "official"]}
SMOKE_KEYS = {"model.weights": "", "epochs": 1, "head.epochs": 0, "batch_size": 16, "eval_batch_size": 32,
              "model.batch_norm_momentum": 0.9}
SMOKE_PATCHES = {"train": 192, "valid": 64, "test": 64}


def run() -> None:
    folder = launch.workdir().path
    if SMOKE.value:
        for name, value in SMOKE_FLAGS.items():
            if not flags.FLAGS[name].present:
                flags.FLAGS[name].value = value
    data = DATA.value or (str(folder / "patches") if SMOKE.value else "")
    if not data:
        raise InputError("--data is missing; name a store made by experiments.prepare: --data=...")
    if ONLY.value:
        return _make_one(data)
    with _alone(folder) as lock:
        if SMOKE.value and not Path(data).exists():
            write_store(open_synthetic(SMOKE_PATCHES, 0), data)
        patches = Patches.open(data)
        runs, left_out = _plan(patches, data)
        failed = _make_all(runs, patches, left_out, lock)
        failed += _compare(runs, failed, patches, folder / "comparison")
    if failed:
        raise InputError(f"{len(failed)} of this study failed: {', '.join(failed)}; why stands above, mend it and "
                         "start the same command again, what is done is kept")


def _plan(patches: Patches, data: str) -> tuple[list[PlannedRun], list[str]]:
    """The runs that the flags ask for, and what the store does not allow."""
    for flag, known in ((CLASSICAL, CLASSIFIERS), (SPLITS, NAMES)):
        for value in flag.value:
            if value not in known:
                raise InputError(f"--{flag.name}: {value!r} is not known; choose of {', '.join(known)}")
    if not all(seed.isdecimal() for seed in SEEDS.value):
        raise InputError(f"--seeds={','.join(SEEDS.value)}: expected whole numbers of at least 0, as 0,1,2")
    networks = launch.NETWORKS.value
    if FEATURES_OF.present and FEATURES_OF.value and FEATURES_OF.value not in networks:
        raise InputError(f"--features_of={FEATURES_OF.value}: is none of --networks={','.join(networks)}")
    overrides = {**(SMOKE_KEYS if SMOKE.value else {}), **({"epochs": EPOCHS.value} if EPOCHS.value else {}),
                 **config_flags.get_override_values(flags.FLAGS["config"])}
    divided, left_out = divisions(patches, SPLITS.value, FOLDS.value, overrides.get("data.split.file", ""))
    runs = plan(launch.workdir().path / "runs", data, divided, networks=networks, classical=CLASSICAL.value,
                features_of=FEATURES_OF.value, seeds=[int(seed) for seed in SEEDS.value], overrides=overrides)
    if FEATURES_OF.value and FEATURES_OF.value not in networks:
        left_out.append(f"features of {FEATURES_OF.value}: it is not among the networks")
    if not runs:
        raise InputError("there is nothing to do: " + ("; ".join(left_out) or "name networks, splits and seeds"))
    return runs, left_out


def _make_one(data: str) -> None:
    """Makes the run of --only in this process."""
    if PARENT.value >= 0:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    patches = Patches.open(data)
    runs = {planned.name: planned for planned in _plan(patches, data)[0]}
    if ONLY.value not in runs:
        raise InputError(f"--only={ONLY.value}: is not in the plan; choose one of {', '.join(runs)}")
    if not runs[ONLY.value].done(patches):
        runs[ONLY.value].make(patches)


def _end_with_parent() -> None:
    os.read(PARENT.value, 1)  # returns when the last process that could write has ended, however it did
    os._exit(1)


def _make_all(runs: Sequence[PlannedRun], patches: Patches, left_out: Sequence[str], lock: int) -> list[str]:
    """Makes what is not done, a process for each run, and returns the names of those that failed."""
    failed, todo = [], []
    print(f"{len(runs)} runs; the log of each lies in {launch.workdir().path / 'logs'}")
    for line in left_out:
        print(f"  left out: {line}")
    for planned in runs:
        try:
            state = "done" if planned.done(patches) else "begun" if planned.folder.path.exists() else "to do"
        except InputError as error:
            state = f"FAILED: {error}"
            failed.append(planned.name)
        print(f"  {planned.name}: {state}", flush=True)
        todo += [planned] if state in ("begun", "to do") else []
    seconds: dict[str, list[float]] = {}
    for number, planned in enumerate(todo, start=1):
        started = time.monotonic()
        why = _make_in_child(planned, failed, lock)
        seconds.setdefault(planned.model, []).append(time.monotonic() - started)
        if why:
            failed.append(planned.name)
        print(f"[{number} of {len(todo)}] {planned.name}: {f'FAILED: {why}' if why else 'done'}, "
              f"{time.monotonic() - started:,.0f} s; {_left(todo[number:], seconds)}", flush=True)
    return failed


def _make_in_child(planned: PlannedRun, failed: Sequence[str], lock: int) -> str:
    """Makes a run in a process of its own, which gives back all its memory; says in a line why it failed, or ""."""
    if planned.source and planned.source.path.name in failed:
        return f"it needs {planned.source.path.name}, which failed"
    log = launch.workdir().path / "logs" / f"{planned.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    for_child, kept = os.pipe()
    command = [sys.executable, "-m", "experiments.reproduce", *sys.argv[1:], f"--only={planned.name}",
               f"--parent={for_child}"]
    try:
        with open(log, "ab") as file:
            ended = subprocess.run(command, stdout=file, stderr=file, pass_fds=(for_child, lock))
    finally:
        os.close(for_child)
        os.close(kept)
    if ended.returncode < 0:
        return f"ended by signal {-ended.returncode}, for want of memory perhaps"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if ended.returncode else ""


def _left(todo: Sequence[PlannedRun], seconds: dict[str, list[float]]) -> str:
    """What is left and how long it takes, by what runs of the same models took."""
    known = [sum(seconds[planned.model]) / len(seconds[planned.model]) for planned in todo if planned.model in seconds]
    unknown = len(todo) - len(known)
    return (f"{len(todo)} left, about {sum(known) / 60:,.0f} minutes"
            + (f" and {unknown} of models that have not run yet" if unknown else ""))


def _compare(runs: Sequence[PlannedRun], failed: Sequence[str], patches: Patches, folder: Path) -> list[str]:
    """Writes a comparison of the runs of each split, and returns the names of those that failed."""
    broken = []
    for group in dict.fromkeys(planned.division.group for planned in runs):
        folders = [planned.folder.path for planned in runs
                   if planned.division.group == group and planned.name not in failed]
        if not folders:
            continue
        try:
            print(f"{group}, {len(folders)} runs: {write_comparison(folders, folder / group, layers=layer_counts)}")
        except InputError as error:
            print(f"{group}: FAILED: {error}")
            broken.append(f"comparison of {group}")
    return broken


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Holds the folder's lock, which the processes of runs hold too: one that outlives its study is waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        for _ in range(100):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            raise InputError(f"{folder}: another study is at work here; wait for its end, or choose another --workdir")
        yield file.fileno()


if __name__ == "__main__":
    launch.main(run)
