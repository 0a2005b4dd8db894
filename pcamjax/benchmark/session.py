"""Measures subjects side by side: a process each, which work in turn while the others wait."""

import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pcamjax import host_memory
from pcamjax.benchmark.material import Case
from pcamjax.benchmark.subjects import OURS, SUBJECTS

# Of the largest logit, by precision: rounding is 1e-5 and 1e-2, another padding or epsilon more.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}


class NotMeasuredError(RuntimeError):
    """A subject could not be measured; the message says why in one line."""


class Entrant(NamedTuple):
    """A subject and what it is measured at."""

    subject: str
    case: Case


@dataclass
class Measurement:
    """What an entrant took.

    Attributes:
      rounds: the seconds of each time, a list a round.
      facts: what its process said when it was ready: first_seconds (tracing and compiling included), first_peak_bytes
        (the memory that this took), and those of its `Work`.
      peak_bytes: the largest memory in use after that.
      reason: why it was not measured, "" if it was.
    """

    entrant: Entrant
    rounds: list[list[float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    peak_bytes: int = 0
    reason: str = ""

    @property
    def seconds(self) -> float:
        """The median of all times; NaN if it was not measured."""
        return float("nan") if self.reason else statistics.median(np.concatenate(self.rounds).tolist())


class Child:
    """The process of an entrant."""

    def __init__(self, entrant: Entrant, folder: Path):
        subject, case = SUBJECTS[entrant.subject], entrant.case
        # Memory as in our jobs, for all. Otherwise glibc gives back all above 32 MiB after every use, to be zeroed
        # before the next: PyTorch then took 1.2 times as long to train scratch #1 and 1.6 times to infer.
        environment = os.environ | host_memory.environment() | {
            "TORCHINDUCTOR_CACHE_DIR": str(folder / f"inductor-{case.task}")}
        if case.devices > 1:  # of the host's platform; where there is another, its own are counted
            flag = f"--xla_force_host_platform_device_count={case.devices}"
            environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flag}".strip()
        self._errors = tempfile.TemporaryFile(dir=folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pcamjax.benchmark.child", subject.module, json.dumps(subject.options), str(folder),
             case.as_json()], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env=environment | subject.environment)

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
        """What it says next: at first, that it has worked once.

        Raises:
          NotMeasuredError: it has died.
        """
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        raise NotMeasuredError(_reason(code, self._errors.read().decode(errors="replace")))

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Session:
    """Where material lies, made once for all entrants that share it; to be used in a `with` statement.

    `alone`: not two processes at a time, for a TPU is held by one; entrants are then measured one after the other.
    """

    def __init__(self, *, alone: bool = False):
        self._alone = alone

    def __enter__(self) -> "Session":
        self._directory = tempfile.TemporaryDirectory(prefix="pcamjax-benchmark-")
        return self

    def __exit__(self, *error: object) -> None:
        self._directory.cleanup()

    def measure(self, entrants: Sequence[Entrant], *, rounds: int, times: int) -> list[Measurement]:
        """Measures entrants in `rounds` rounds of `times` times each, whose order is turned round every time.

        Each entrant begins a round with a time that is not counted. One that cannot be measured says why in its
        `reason`; so does one whose logits are not those of the first of its case.
        """
        measurements = [Measurement(entrant) for entrant in entrants]
        logits: dict[Case, np.ndarray] = {}
        for some in [[made] for made in measurements] if self._alone else [measurements]:
            with contextlib.ExitStack() as stack:
                children = []
                for made in some:  # one after the other, for a first time is timed as well
                    with _noted(made):
                        children.append((made, self._begin(made, stack, logits)))
                for turn in range(rounds):
                    for made, child in children[:: 1 if turn % 2 == 0 else -1]:
                        if not made.reason:
                            with _noted(made):
                                said = child.ask(times + 1)
                                made.rounds.append(said["seconds"][1:])
                                made.peak_bytes = said["peak_bytes"]
        return measurements

    def _begin(self, made: Measurement, stack: contextlib.ExitStack, logits: dict[Case, np.ndarray]) -> Child:
        """Starts a process, waits until it has worked once and looks at its logits."""
        case = made.entrant.case
        child = Child(made.entrant, self._material(made.entrant))
        stack.callback(child.end)
        made.facts = child.answer()
        result = np.array(made.facts.pop("result"))
        if case.task == "infer":
            _require_same(result, logits.setdefault(replace(case, devices=1), result), case.precision)
        return child

    def _material(self, entrant: Entrant) -> Path:
        """The folder of an entrant's material, written as far as it is not yet there."""
        case = entrant.case.material
        folder = Path(self._directory.name) / hashlib.sha256(case.as_json().encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        for module in SUBJECTS[entrant.subject].prepared_by:
            mark = folder / f"made by {module}"
            if not mark.exists():
                # By JAX, which is always there, and not on an accelerator, whose memory is the subjects'.
                done = subprocess.run([sys.executable, "-m", module, str(folder), case.as_json()], text=True,
                                      capture_output=True,
                                      env=os.environ | {"JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"})
                if done.returncode:
                    raise NotMeasuredError(_reason(done.returncode, done.stderr))
                mark.touch()
        return folder


def environment() -> dict[str, Any]:
    """`pcamjax.training.run.environment`, from a process that gives the accelerator back."""
    code = "import json; from pcamjax.training.run import environment; print(json.dumps(environment()))"
    done = subprocess.run([sys.executable, "-c", code], text=True, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout) | {"command": ["python", *sys.orig_argv[1:]]}


def ratios(made: Measurement, other: Measurement) -> tuple[float, list[float]]:
    """How many times as long `made` took as `other`, of all rounds and of each."""
    each = [statistics.median(a) / statistics.median(b) for a, b in zip(made.rounds, other.rounds, strict=False)]
    return made.seconds / other.seconds, each


def baseline(made: Measurement, measurements: Sequence[Measurement]) -> Measurement | None:
    """Ours at the same case on one device, one step a program, to which a measurement is to be compared; None if it is
    that itself."""
    wanted = Entrant(OURS, replace(made.entrant.case, devices=1, steps_per_dispatch=1))
    return next((other for other in measurements if other.entrant == wanted and other is not made), None)


@contextlib.contextmanager
def _noted(made: Measurement) -> Iterator[None]:
    try:
        yield
    except NotMeasuredError as error:
        made.reason = str(error)


def _reason(code: int, said: str) -> str:
    """The last line that a process said before it ended with `code`."""
    lines = said.strip().splitlines()
    return lines[-1] if lines and code > 0 else f"its process ended with code {code}"


def _require_same(logits: np.ndarray, expected: np.ndarray, precision: str) -> None:
    apart = np.abs(logits - expected).max() / np.abs(expected).max()
    if not apart < TOLERANCES[precision]:
        raise NotMeasuredError(f"its logits are {apart:.1g} of the largest away from the first subject's")
