"""Measures subjects side by side: a process each, which work in turn while the others wait."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pcamjax.benchmark.material import Case, write_case
from pcamjax.benchmark.subjects import SUBJECTS

TOLERANCE = 1e-3  # of the largest logit: rounding is 1e-5, another padding or epsilon 1e-2 and more


class NotMeasuredError(RuntimeError):
    """A subject that could not be measured, and why, in one line."""


@dataclass
class Measurement:
    """What one subject took.

    Attributes:
      first_seconds: of the first time, what is compiled or traced then included.
      rounds: the seconds of each time, a list a round.
      peak_bytes: the largest resident memory after the first two times.
      reason: why there is nothing of all this, "" where there is.
    """

    subject: str
    first_seconds: float = float("nan")
    rounds: list[list[float]] = field(default_factory=list)
    peak_bytes: int = 0
    reason: str = ""

    @property
    def seconds(self) -> float:
        """The median of all times."""
        return statistics.median([seconds for made in self.rounds for seconds in made])


class Child:
    """The process of a subject."""

    def __init__(self, folder: Path, subject: str):
        self._errors = open(folder / f"{subject}.log", "w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pcamjax.benchmark.child", str(folder), subject], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors,
            env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")} | SUBJECTS[subject].environment)

    def ask(self, times: int) -> dict[str, Any]:
        """Has it do its work so many times.

        Raises:
          NotMeasuredError: it has died.
        """
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{times}\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What it says next, its first answer when it has worked once.

        Raises:
          NotMeasuredError: it has died.
        """
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        raise NotMeasuredError(f"{said[-1]}" if said and code > 0 else f"its process ended with code {code}")

    def end(self) -> None:
        """Lets it go and waits until it is gone."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()


def compare(case: Case, subjects: Iterable[str], *, rounds: int, times: int) -> list[Measurement]:
    """Measures the subjects on one case: `rounds` rounds of `times` times each, forwards and backwards in turn.

    The first time of a round is not counted. A subject that cannot be measured says why in its `reason`; one whose
    logits are not those of the first is not measured.

    Raises:
      NotMeasuredError: what all need cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="pcamjax-benchmark-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_case(case, folder)
        _prepare(folder)
        measurements, children, logits = {}, {}, None
        for subject in subjects:  # one after the other: a first time is timed as well
            made = measurements[subject] = Measurement(subject)
            with _noted(made):
                child = Child(folder, subject)
                stack.callback(child.end)
                first = child.answer()
                made.first_seconds, result = first["first_seconds"], np.array(first["result"])
                if case.task == "infer":
                    logits = result if logits is None else logits
                    _require_same(result, logits)
                children[subject] = child
        for turn in range(rounds):
            for subject in list(children)[:: 1 if turn % 2 == 0 else -1]:
                made = measurements[subject]
                with _noted(made):
                    said = children[subject].ask(times + 1)
                    made.rounds.append(said["seconds"][1:])
                    made.peak_bytes = said["peak_bytes"]
                if made.reason:
                    del children[subject]
    return list(measurements.values())


@contextlib.contextmanager
def _noted(made: Measurement) -> Iterator[None]:
    try:
        yield
    except NotMeasuredError as error:
        made.reason = str(error)


def _prepare(folder: Path) -> None:
    # Not on the accelerator, whose memory is the subjects'.
    done = subprocess.run([sys.executable, "-m", "pcamjax.benchmark.preparation", str(folder)], text=True,
                          capture_output=True, env=os.environ | {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"})
    if done.returncode:
        raise NotMeasuredError(done.stderr.strip().splitlines()[-1])


def _require_same(logits: np.ndarray, expected: np.ndarray) -> None:
    apart = np.abs(logits - expected).max() / np.abs(expected).max()
    if not apart < TOLERANCE:
        raise NotMeasuredError(f"its logits are {apart:.1g} of the largest away from the first subject's")
