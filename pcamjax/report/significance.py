"""Which models differ from a reference: paired tests on the same patches, corrected for how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pcamjax.errors import InputError
from pcamjax.evaluation.paired import Comparison, compare_each, holm
from pcamjax.evaluation.weighted_metrics import METRICS
from pcamjax.inference.predictions import require_same_patches
from pcamjax.report.compared_runs import ComparedRun

LEVEL = 0.05
HIGHER, LOWER, EQUAL = "▲", "▼", "≈"
TESTS = {"auc": "DeLong", "accuracy": "McNemar"}  # the other metrics: paired bootstrap


@dataclass(frozen=True)
class PairedTest:
    """One metric of a run against the reference's: `run - reference` with its 95 % interval, p, and p by Holm."""

    run: str
    metric: str
    test: str
    difference: float
    low: float
    high: float
    p: float
    adjusted: float

    @property
    def mark(self) -> str:
        if np.isnan(self.adjusted):
            return ""
        if self.adjusted >= LEVEL:
            return EQUAL
        return HIGHER if self.difference > 0 else LOWER


@dataclass(frozen=True)
class Significance:
    """The tests of all runs against `reference`, and why some were not tested, by the run's name."""

    reference: ComparedRun
    tests: tuple[PairedTest, ...]
    untested: dict[str, str]
    resampling: str

    def mark(self, run: ComparedRun, metric: str) -> str:
        """Whether the metric is significantly higher or lower than the reference's, or not; "" without a test."""
        if run.name == self.reference.name and metric in METRICS:
            return "ref."
        return next((test.mark for test in self.tests if (test.run, test.metric) == (run.name, metric)), "")


def choose_reference(runs: Sequence[ComparedRun], asked: str | None) -> ComparedRun:
    """The run of this name or path, or else the one with the best AUC.

    Raises:
      InputError: no run is called so.
    """
    if asked is None:
        return max(runs, key=lambda run: -1 if np.isnan(run.metrics.auc) else run.metrics.auc)
    for run in runs:
        if asked in (run.name, run.path.name, str(run.path)):
            return run
    raise InputError(f"--reference={asked}: is none of the runs; choose one of {', '.join(run.name for run in runs)}")


def against_reference(runs: Sequence[ComparedRun], reference: ComparedRun) -> Significance:
    """Tests every other run on the patches of the reference; a metric's p-values are adjusted together (Holm 1979)."""
    tested, untested = [], {}
    for run in runs:
        if run.name == reference.name:
            continue
        try:
            require_same_patches(run.predictions, reference.predictions)
            tested.append(run)
        except InputError as error:
            untested[run.name] = str(error).partition("; score both")[0]
    made = compare_each(reference.predictions, [run.predictions for run in tested])
    by_slide = bool(made) and made[0].resampling.unit == "slides"
    tests = []
    for metric in METRICS:
        test = TESTS.get(metric, "bootstrap") + (" and bootstrap" if by_slide and metric in TESTS else "")
        p = np.array([_p(comparison, metric, by_slide) for comparison in made], dtype=float)
        for run, comparison, plain, adjusted in zip(tested, made, p, holm(p), strict=True):
            difference = comparison.differences[metric]
            tests.append(PairedTest(run.name, metric, test, difference.value, difference.low,
                                    difference.high, float(plain), float(adjusted)))
    return Significance(reference, tuple(tests), untested, str(made[0].resampling) if made else "")


def _p(comparison: Comparison, metric: str, by_slide: bool) -> float:
    """Of the metric's test; where slides are known, which only the bootstrap heeds, no smaller than that one's."""
    resampled = comparison.differences[metric].p
    if metric not in TESTS:
        return resampled
    own = comparison.delong.p if metric == "auc" else comparison.mcnemar.p
    return float(np.maximum(own, resampled)) if by_slide else own
