"""Jobs that a signal ends: exit code 75, one line, nothing half-written, and the same command does the rest."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pcamjax.data.sources import synthetic
from pcamjax.inference import predict

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = """import hashlib
from experiments import launch

def run():
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # a call of C that takes minutes and hears no signal

launch.main(run)
"""


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def killing(function, number):
    """The function, which gets a signal before its work."""
    def killed(*arguments, **options):
        os.kill(os.getpid(), number)
        return function(*arguments, **options)
    return killed


def stopped_line(ended) -> str:
    lines = [line for line in ended.err.splitlines() if line.strip() and "%|" not in line]
    assert ended.code == 75 and len(lines) == 1 and lines[0].startswith("stopped: "), ended
    return lines[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("name", ["evaluate", "predict", "explain"])
def test_what_was_there_stays_where_a_job_is_stopped(job, place, monkeypatch, name, number):
    flags = (f"--workdir={place / 'run'}", f"--config.data.path={place / 'store'}", "--split=train")
    before = contents(place)
    with monkeypatch.context() as patched:
        patched.setattr(predict, "_logits", killing(predict._logits, number))
        line = stopped_line(job(name, *flags))
    assert line == "stopped: a signal came; nothing is left half-written, start the same command again"
    assert contents(place) == before
    assert job(name, *flags).code == 0


def test_an_error_that_a_library_makes_of_a_signal_is_a_stop(job, place, monkeypatch):
    def confused(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("a callback failed") from None

    with monkeypatch.context() as patched:
        patched.setattr(predict, "_logits", confused)
        stopped_line(job("evaluate", f"--workdir={place / 'run'}", f"--config.data.path={place / 'store'}",
                         "--split=train"))


def test_a_conversion_that_is_stopped_leaves_nothing(job, tmp_path, monkeypatch):
    flags = ("--source=synthetic", "--counts=10,0,10", f"--output={tmp_path / 'store'}")
    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "generate", killing(synthetic.generate, signal.SIGTERM))
        stopped_line(job("prepare", *flags))
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_that_is_stopped_leaves_no_folder(job, place, monkeypatch):
    from pcamjax.baselines import baseline
    flags = ("--config=configs/baselines.py", f"--workdir={place / 'forest'}", f"--config.data.path={place / 'store'}",
             "--config.model.name=forest")
    monkeypatch.setattr(baseline, "choose", killing(baseline.choose, signal.SIGTERM))
    stopped_line(job("baselines", *flags, "--split=valid"))
    assert not (place / "forest").exists()


def test_a_training_in_a_process_of_its_own_is_stopped_and_goes_on(place):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "experiments.train", f"--workdir={place / 'new'}",
               f"--config={place / 'config.py'}", f"--config.data.path={place / 'store'}", "--config.epochs=200"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    deadline = time.monotonic() + 240
    while not list((place / "new").glob("checkpoints/last/[0-9]*")):
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be stopped"
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    newest = max(int(folder.name) for folder in (place / "new").glob("checkpoints/last/*"))
    assert process.returncode == 75, err
    assert err.splitlines()[-1] == (f"stopped: SIGTERM came; step {newest} is saved, start the same command again "
                                    "to go on")
    assert not list((place / "new").glob(".*")) and not (place / "new" / "record.json").exists()
    assert all(json.loads(line)["step"] <= newest
               for line in (place / "new" / "metrics.jsonl").read_text().splitlines())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_job_at_once(number):
    process = subprocess.Popen([sys.executable, "-c", AT_ONCE], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)  # it is in the call of C by then
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=10)
    assert process.returncode == 128 + number
