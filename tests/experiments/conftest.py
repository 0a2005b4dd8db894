"""The jobs as a user runs them, but in this process: arguments in, exit code and text out."""

import contextlib
import importlib
import io
import shutil
import warnings
from pathlib import Path
from typing import NamedTuple

import jaxtyping
import pytest
import tiny
from absl.testing import flagsaver

# Registers the network where the configuration is read, so that a process of its own knows it too.
CONFIG = """import tiny

def get_config():
    tiny.register()
    return tiny.config("", epochs=1)
"""


class Ended(NamedTuple):
    """How a job ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of an ended job that was refused its input, progress bars aside."""
        lines = [line for line in self.err.splitlines() if line.strip() and "%|" not in line]
        assert self.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), self
        assert f"\n{self.err}".endswith(f"\n{lines[0]}\n"), "a progress bar runs into the line"
        return lines[0]


def run_job(name: str, *arguments: object) -> Ended:
    """Runs `python -m experiments.<name> <arguments>` without the shape checks that tests run under."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections loads a configuration
        from experiments import launch
        job = importlib.import_module(f"experiments.{name}")
        out, err = io.StringIO(), io.StringIO()
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            with (pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver(), contextlib.redirect_stdout(out),
                  contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended):
                patch.setattr("sys.argv", [f"experiments/{name}.py", *map(str, arguments)])
                launch.main(job.run)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)
    return Ended(ended.value.code or 0, out.getvalue(), err.getvalue())


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="session")
def job():
    """`run_job`, and the network "tiny" with it."""
    tiny.register()
    return run_job


@pytest.fixture(scope="session")
def finished(job, tmp_path_factory):
    """A folder with config.py, a store and a run trained on it, evaluated, predicted and explained, each by its job.

    Returns the folder and, by job, how it ended.
    """
    root = tmp_path_factory.mktemp("jobs")
    (root / "config.py").write_text(CONFIG)
    tiny.write_noise(root / "store")
    workdir = f"--workdir={root / 'run'}"
    ended = {"train": job("train", workdir, f"--config={root / 'config.py'}", f"--config.data.path={root / 'store'}"),
             "evaluate": job("evaluate", workdir, "--split=valid", "--checkpoint=best"),
             "predict": job("predict", workdir),
             "explain": job("explain", workdir, "--split=valid", "--num=6")}
    return root, ended


@pytest.fixture
def place(finished, tmp_path):
    """A copy of `finished` to damage."""
    return shutil.copytree(finished[0], tmp_path / "place")
