"""Several processes on this machine as one job: the steps of one process, each patch once, and an end for all."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from pcamjax import hosts
from pcamjax.errors import InputError
from pcamjax.inference.predict import load_run, predict_split
from pcamjax.inference.predictions import Predictions
from pcamjax.training.loop import fit
from pcamjax.training.run import RunFolder

ROOT = Path(__file__).resolve().parents[1]
# 20 patches to validate in batches of 12, 8 to train on of 48; dropout, BatchNorm, all augmentation, two phases.
SETTINGS = {"model.name": "smooth", "model.frozen": "none", "eval_batch_size": 12, "parallel.devices": 0}
CONFIG = f"""import tiny

def get_config():
    tiny.register()
    return tiny.config("", **{SETTINGS})
"""
TIMES = ("seconds", "valid_seconds", "images_per_second")
TRAIN = ("-m", "experiments.train")
ALL_THREE = ("-c", """from experiments import evaluate, launch, predict, train

def run():
    train.run()
    evaluate.run()
    predict.run()

launch.main(run, several=True)
""")


class Processes:
    """So many processes of one command, which are one job; each has one device. "{index}" is the process' own."""

    def __init__(self, count: int, *command: object):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "JAX_PLATFORMS": "cpu"}
        self.started = [subprocess.Popen(
            [sys.executable, *(str(word).replace("{index}", str(index)) for word in command),
             f"--coordinator_address={address}", f"--num_processes={count}", f"--process_id={index}"], cwd=ROOT,
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for index in range(count)]

    def wait_for(self, path: Path) -> None:
        """Until it is there."""
        deadline = time.monotonic() + 300
        while not path.exists():
            assert all(process.poll() is None for process in self.started) and time.monotonic() < deadline, self.ended()
            time.sleep(0.005)

    def ended(self, timeout: float = 300) -> list[tuple[int, str, str]]:
        """Exit code and what was printed, by process."""
        try:
            outputs = [process.communicate(timeout=timeout) for process in self.started]
        finally:
            for process in self.started:
                process.kill()
        return [(process.returncode, *output) for process, output in zip(self.started, outputs, strict=True)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with config.py, a store, and a run trained on it by this process alone."""
    tiny.register()
    root = tmp_path_factory.mktemp("hosts")
    (root / "config.py").write_text(CONFIG)
    patches = tiny.write_noise(root / "store")
    fit(tiny.config(patches.path, **SETTINGS | {"parallel.devices": 1}), patches, tiny.split(patches),
        RunFolder(root / "alone"))
    return root, patches


def job(place: Path, processes: int, program: tuple[str, str], run: str, *flags: str) -> Processes:
    return Processes(processes, *program, f"--config={place / 'config.py'}", f"--config.data.path={place / 'store'}",
                     f"--workdir={place / run}", *flags)


def assert_same_run(folder: Path, alone: Path) -> None:
    """Weights, statistics and every epoch's figures, to float32 rounding."""
    ours, theirs = (load_run(path).variables for path in (folder, alone))
    for (path, a), b in zip(jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True):
        assert np.linalg.norm(a - b) <= 2e-5 * (np.linalg.norm(b) + 1e-3), jax.tree_util.keystr(path)
    lines = [[{key: value for key, value in json.loads(line).items() if key not in TIMES}
              for line in (path / "metrics.jsonl").read_text().splitlines()] for path in (folder, alone)]
    assert len(lines[0]) == 3
    for line, expected in zip(*lines, strict=True):
        assert line == pytest.approx(expected, rel=1e-4)


def test_a_signal_to_one_of_two_stops_both_and_four_go_on_as_one_would_have(place):
    """SIGTERM at any process; then the same weights, figures and predictions as one process, each patch once, all of it
    written by the first."""
    root, patches = place
    pair = job(root, 2, TRAIN, "stopped{index}")
    pair.wait_for(root / "stopped0" / "checkpoints" / "last" / "8")  # in the second phase
    pair.started[1].send_signal(signal.SIGTERM)
    ended = pair.ended()
    assert [code for code, *_ in ended] == [75, 75], ended
    lines = [err.splitlines()[-1] for *_, err in ended]
    assert lines[0].startswith("stopped: a signal to another process came; step ")
    assert lines[1] == lines[0].replace("a signal to another process", "SIGTERM")
    assert not (root / "stopped1").exists(), "the second process has written"
    steps = {int(path.name) for path in (root / "stopped0" / "checkpoints" / "last").iterdir()}
    assert f"step {max(steps)} is saved" in lines[0] and max(steps) < 18

    ended = job(root, 4, ALL_THREE, "stopped0", "--split=valid", "--config.input.where=device",
                "--config.input.steps_per_dispatch=2").ended()
    assert [code for code, *_ in ended] == [0] * 4, ended
    assert "images on the device, 4 device(s) of 4 processes; began with weights drawn anew; going on" in ended[0][1]
    assert f"going on after step {max(steps)}\n" in ended[0][1]
    assert ended[0][1].count("report: ") == 2
    # Gloo's own line comes from C++, which knows nothing of sys.stdout.
    assert not [line for _, out, _ in ended[1:] for line in out.splitlines() if "[Gloo]" not in line]
    assert_same_run(root / "stopped0", root / "alone")
    record = json.loads((root / "stopped0" / "record.json").read_text())
    assert record["cost"]["device"].startswith("2 CPU devices of 2 processes, then 4 CPU devices of 4")
    ours = Predictions.load(RunFolder(root / "stopped0").predictions("valid"))
    alone = predict_split(load_run(root / "alone"), patches, tiny.split(patches), "valid")
    assert ours.ids.tolist() == alone.ids.tolist() and len(set(ours.ids)) == 20
    np.testing.assert_allclose(ours.logits, alone.logits, rtol=1e-3, atol=1e-4)
    evaluation = json.loads(RunFolder(root / "stopped0").evaluation("valid").read_text())
    assert evaluation["cost"]["images"] == 20
    assert len((root / "stopped0" / "predictions" / "valid.csv").read_text().splitlines()) == 21


@pytest.mark.parametrize(("number", "victim", "reason", "others"), [
    (signal.SIGKILL, 1, "cannot go on", 0),
    pytest.param(signal.SIGKILL, 0, "", 2, marks=pytest.mark.exhaustive),  # who notices first, is open
    # As a host whose power or network is gone.
    pytest.param(signal.SIGSTOP, 0, "JAX's runtime ended", 1, marks=pytest.mark.exhaustive),
    pytest.param(signal.SIGSTOP, 1, "JAX's runtime ended", 4, marks=pytest.mark.exhaustive)])
def test_when_one_of_two_dies_the_other_ends_within_a_minute(place, number, victim, reason, others):
    """And says why; and `others` processes go on, and end as one would have."""
    root, run = place[0], f"{number.name}{victim}"
    pair = job(root, 2, TRAIN, run, *([] if others else ["--config.epochs=200"]))
    pair.wait_for(root / run / "checkpoints" / "last" / "4")
    pair.started[victim].send_signal(number)
    try:
        pair.started[1 - victim].wait(60)
    finally:
        for process in pair.started:
            process.kill()
    code, _, err = pair.ended()[1 - victim]
    last = err.splitlines()[-1]
    assert code == 1 and last.startswith("error: ") and reason in last and last.endswith(hosts.GO_ON), err
    assert not (root / run / "record.json").exists(), "finished before it was killed"
    if others:
        ended = job(root, others, TRAIN, run).ended()
        assert [code for code, *_ in ended] == [0] * others, ended
        assert "going on after step" in ended[0][1]
        assert_same_run(root / run, root / "alone")


DISAGREE = """import sys
import jax
import numpy as np
from pcamjax import hosts
from pcamjax.errors import InputError
from pcamjax.training.parallel import choose_devices, spread

def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except InputError as error:
        print(error, file=sys.stderr)

address, count, index = (argument.partition("=")[2] for argument in sys.argv[1:])
hosts.join(address, int(count), int(index))
assert hosts.of_first({"x": np.float32(index)})["x"] == 0
assert [bool(hosts.any_process(flag)) for flag in (False, index == "0", index == "1")] == [False, True, True]
hosts.require_same({"store": "a", "checkpoint": 4})
refused(hosts.require_same, {"store": "a", "checkpoint": int(index)})
refused(choose_devices, 1, 8)
refused(choose_devices, 0, 7)
refused(spread, lambda *x: x, choose_devices(0, 8), "pmap", batch_output=False)
hosts.part()
"""


def test_what_processes_know_otherwise_or_cannot_do_is_named_by_all():
    ended = Processes(2, "-c", DISAGREE).ended()
    assert [code for code, *_ in ended] == [0, 0], ended
    for index, (_, _, err) in enumerate(ended):
        assert f"process 1 has another checkpoint than process 0; here it is {index}; start all" in err
        for line in ("parallel.devices 1: 2 processes have 2 and use them all; choose 0",
                     "batch_size 7 does not divide among 2 devices", "'pmap' works in one process; several need shard"):
            assert line in err


def test_a_process_of_no_scheduler_stays_alone(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    for name, value in (("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "4"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")):
        monkeypatch.setenv(name, value)
    hosts.join(None, None, None)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    hosts.join(None, 1, None)
    hosts.part()
    assert hosts.is_first() and not hosts.several() and hosts.any_process(True) is True


def test_what_a_scheduler_knows_is_left_to_jax(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **options: asked.append((given, options)))
    monkeypatch.setattr(hosts, "_say_why_at_abort", lambda: None)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    hosts.join(None, None, None)
    [(given, options)] = asked
    assert given == (None, None, None) and options["cluster_detection_method"] is None
    assert options["heartbeat_timeout_seconds"] < 60


def test_half_of_the_flags_is_refused():
    with pytest.raises(InputError, match="--num_processes=2 --process_id=None: give all three"):
        hosts.join("host:1", 2, None)
