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
SETTINGS = {"model.name": "smooth", "model.frozen": "none", "eval_batch_size": 12, "parallel.devices": 0}
CONFIG = f"""import tiny

def get_config():
    tiny.register()
    return tiny.config("", **{SETTINGS})
"""
TIMES = ("seconds", "valid_seconds", "images_per_second")


class Processes:
    """So many processes of one command, which are one job; each has one device."""

    def __init__(self, count: int, *command: object):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "JAX_PLATFORMS": "cpu"}
        self.started = [subprocess.Popen(
            [sys.executable, *map(str, command), f"--coordinator_address={address}", f"--num_processes={count}",
             f"--process_id={index}"], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE) for index in range(count)]

    def ended(self, timeout: float = 120) -> list[tuple[int, str, str]]:
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


def train(place: Path, run: str, processes: int) -> Processes:
    return Processes(processes, "-m", "experiments.train", f"--config={place / 'config.py'}",
                     f"--config.data.path={place / 'store'}", f"--workdir={place / run}")


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


@pytest.mark.parametrize(("victim", "others", "reason"), [(1, 4, "cannot go on"), (0, 2, "JAX's runtime ended this")])
def test_when_one_of_two_is_killed_the_other_ends_and_other_processes_go_on(place, victim, others, reason):
    """As one process would have: the same weights and figures, with a validation part that does not divide."""
    root, run = place[0], f"victim{victim}"
    pair = train(root, run, 2)
    deadline = time.monotonic() + 120
    while not (root / run / "checkpoints" / "last" / "4").is_dir():
        assert all(process.poll() is None for process in pair.started) and time.monotonic() < deadline, pair.ended()
        time.sleep(0.005)
    pair.started[victim].send_signal(signal.SIGKILL)
    started = time.monotonic()
    code, out, err = pair.ended(60)[1 - victim]
    assert time.monotonic() - started < 60 and code == 1
    assert err.splitlines()[-1].startswith("error: ") and reason in err.splitlines()[-1]
    assert "goes on from its last checkpoint" in err.splitlines()[-1]
    assert not (root / run / "record.json").exists(), "finished before it was killed"

    ended = train(root, run, others).ended()
    assert [code for code, *_ in ended] == [0] * others, ended
    assert "going on after step" in ended[0][1] and "report: " in ended[0][1]
    # Gloo's own line comes from C++, which knows nothing of sys.stdout.
    assert not [line for _, out, _ in ended[1:] for line in out.splitlines() if "[Gloo]" not in line]
    assert_same_run(root / run, root / "alone")


def test_two_processes_predict_every_patch_once(place):
    root, patches = place
    ended = Processes(2, "-m", "experiments.predict", f"--workdir={root / 'alone'}").ended()
    assert [code for code, *_ in ended] == [0, 0], ended
    ours = Predictions.load(RunFolder(root / "alone").predictions("test"))
    alone = predict_split(load_run(root / "alone", config=tiny.config(
        patches.path, **SETTINGS | {"parallel.devices": 1})), patches, tiny.split(patches), "test")
    assert ours.ids.tolist() == alone.ids.tolist() and len(set(ours.ids)) == 25
    np.testing.assert_allclose(ours.logits, alone.logits, rtol=1e-5, atol=1e-5)


DISAGREE = """import sys
import numpy as np
from pcamjax import hosts
from pcamjax.errors import InputError
address, count, index = (argument.partition("=")[2] for argument in sys.argv[1:])
hosts.join(address, int(count), int(index))
assert hosts.of_first({"x": np.float32(index)})["x"] == 0
hosts.require_same({"store": "a", "checkpoint": 4})
try:
    hosts.require_same({"store": "a", "checkpoint": int(index)})
except InputError as error:
    print(error, file=sys.stderr)
hosts.part()
"""


def test_what_processes_know_otherwise_is_named_by_all():
    ended = Processes(2, "-c", DISAGREE).ended()
    assert [code for code, *_ in ended] == [0, 0], ended
    for index, (_, _, err) in enumerate(ended):
        assert f"process 1 has another checkpoint than process 0; here it is {index}; start all" in err


def test_a_process_of_no_scheduler_stays_alone(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    for name, value in (("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "4"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")):
        monkeypatch.setenv(name, value)
    hosts.join(None, None, None)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    hosts.join(None, 1, None)
    hosts.part()
    assert hosts.is_first() and not hosts.several()


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
