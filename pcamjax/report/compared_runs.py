"""Run folders as a comparison reads them: the model that each is a run of, its figures of merit and what it cost."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcamjax.errors import InputError
from pcamjax.evaluation.bootstrap import Estimate, intervals
from pcamjax.evaluation.metrics import Metrics
from pcamjax.evaluation.weighted_metrics import METRICS
from pcamjax.explain.explanations import Explanations, read_explanations
from pcamjax.files import read_json
from pcamjax.inference.predictions import Predictions
from pcamjax.report.run_files import read_history, read_split, read_table
from pcamjax.report.thesis import CLASSIFIERS, PUBLISHED, Published

# What runs of one model may differ in: seeds and folds, and where and on what they ran.
_FREE = ("seed", "carbon", "data.path", "data.split.seed", "data.split.fold", "features.run", "input", "parallel",
         "eval_batch_size", "checkpoint_every", "model.remat")
_COSTS = ("train_ms_per_image", "parameters", "bytes", "flops_per_image", "energy_kwh", "co2_kg")


@dataclass(frozen=True)
class ComparedRun:
    """A run folder, read.

    Attributes:
      name: of the folder, or its path where two folders have one name.
      key: of its row in `PUBLISHED`, or the name of a model that the thesis does not have.
      variant: equal for runs that differ in seed or fold alone.
      estimates: of each of `weighted_metrics.METRICS`, with 95 % intervals.
      cost: what training and evaluation say it cost; what was not measured is not there.
    """

    path: Path
    name: str
    key: str
    variant: str
    config: dict[str, Any]
    record: dict[str, Any]
    metrics: Metrics
    predictions: Predictions
    estimates: dict[str, Estimate]
    resampling: str
    cost: dict[str, float]
    history: dict[str, np.ndarray]
    explanations: Explanations | None


@dataclass(frozen=True)
class Model:
    """A row of the comparison: a model, what the thesis says of it, and its runs, of which there may be none."""

    key: str
    title: str
    published: Published
    runs: tuple[ComparedRun, ...]

    @property
    def is_network(self) -> bool:
        return self.published.family in ("scratch", "fine-tuned")

    def mean(self, metric: str) -> float:
        """Over the runs; NaN where there is none."""
        return float(np.mean([run.estimates[metric].value for run in self.runs])) if self.runs else math.nan

    def cost(self, name: str) -> float:
        """The mean over the runs of which it was measured; NaN where there is none."""
        known = [run.cost[name] for run in self.runs if name in run.cost]
        return float(np.mean(known)) if known else math.nan


def read_runs(folders: Sequence[Path], split: str) -> list[ComparedRun]:
    """Reads the folders, in the order given.

    Raises:
      InputError: there is none or one is given twice; a folder is no run, was not evaluated on `split`, or is damaged.
    """
    if not folders:
        raise InputError("there is no run to compare; name run folders: python -m experiments.compare RUN...")
    places = [folder.resolve() for folder in folders]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise InputError(f"{folders[number]}: given twice; name each run once")
    names = [place.name for place in places]
    return [_read_run(folder, name if names.count(name) == 1 else str(folder), split)
            for folder, name in zip(folders, names, strict=True)]


def as_models(runs: Sequence[ComparedRun]) -> list[Model]:
    """The rows, in the thesis' order and then as they come; those of the thesis that were not run have no runs."""
    groups: dict[tuple[str, str], list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault((run.key, run.variant), []).append(run)
    keys = sorted(dict.fromkeys([*PUBLISHED, *(run.key for run in runs)]), key=_place)
    models = []
    for key in keys:
        of_key = [members for (name, _), members in groups.items() if name == key]
        if not of_key and any(run.key.startswith(f"{key} of ") for run in runs):
            continue  # its features were taken from networks that have rows of their own
        for members in of_key or [[]]:
            published = PUBLISHED.get(key) or _unpublished(key, members[0])
            title = published.title if len(of_key) < 2 else f"{published.title} ({members[0].name})"
            models.append(Model(key, title, published, tuple(members)))
    return models


def _place(key: str) -> int:
    """Puts features of a network where features stand, and models that the thesis does not have last."""
    base = key.split(" of ")[0]
    return list(PUBLISHED).index(base) if base in PUBLISHED else len(PUBLISHED)


def _unpublished(key: str, run: ComparedRun) -> Published:
    if " of " in key:
        base, network = key.split(" of ")
        title = PUBLISHED[network].title if network in PUBLISHED else network
        return Published(PUBLISHED[base].title.replace("network", title), "features")
    return Published(key, "fine-tuned" if run.record.get("weights") else "scratch")


def _read_run(folder: Path, name: str, split: str) -> ComparedRun:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: not a run folder (no config.json); name the --workdir of a training or baseline")
    file = folder / "evaluation" / f"{split}.json"
    if not file.is_file():
        raise InputError(f"{file}: no such file; evaluate this run first: python -m experiments.evaluate "
                         f"--workdir={folder} --split={split} (a baseline: experiments.baselines)")
    config, record = read_table(folder / "config.json"), read_table(folder / "record.json")
    metrics, predictions = read_split(folder, split)
    explained = folder / "explanations" / f"{split}.npz"
    try:
        key = _key(config, predictions.meta)
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'}: does not say which model this is ({type(error).__name__}: "
                         f"{error}); restore it") from None
    estimates, resampling = _estimates(file, predictions)
    return ComparedRun(folder, name, key, _variant(config, predictions.meta), config, record, metrics, predictions,
                       estimates, resampling, _cost(folder / "record.json", file),
                       read_history(folder / "metrics.jsonl"),
                       read_explanations(explained) if explained.is_file() else None)


def _key(config: dict[str, Any], meta: dict[str, Any]) -> str:
    name = config["model"]["name"]
    if "features" not in config:
        return name
    kind = "histogram" if config["features"]["name"] == "histogram" else "features"
    if name not in CLASSIFIERS:
        raise KeyError(f"the classifier {name!r}")
    network = re.search(r" on features of (\S+) ", str(meta.get("model")))
    return f"{kind} {name}" + (f" of {network[1]}" if kind == "features" and network else "")


def _variant(config: dict[str, Any], meta: dict[str, Any]) -> str:
    # Of a baseline it says the settings that were chosen, which may differ from fold to fold.
    checkpoint = "" if "features" in config else re.sub(r", step \d+", "", str(meta.get("checkpoint")))
    how = [checkpoint, meta.get("averaged"), meta.get("store_sha256")]
    return json.dumps([_settings(config), how], sort_keys=True)


def _settings(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a configuration but for those in which runs of one model may differ."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if prefix + name not in _FREE:
            flat |= _settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _estimates(file: Path, predictions: Predictions) -> tuple[dict[str, Estimate], str]:
    """As the evaluation holds them, or else computed anew: an evaluation of an older version holds none."""
    made = read_json(file).get("assessment")
    if made is None:
        computed = intervals(predictions)
        return computed.estimates, str(computed.resampling)
    try:
        def number(value: float | None) -> float:
            return math.nan if value is None else float(value)
        return {name: Estimate(*(number(made["intervals"][name][end]) for end in ("value", "low", "high")),
                               int(made["intervals"][name]["left_out"])) for name in METRICS}, str(made["resampling"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: its assessment is not of this form ({type(error).__name__}: {error}); make it "
                         "again: python -m experiments.evaluate") from None


def _cost(record: Path, evaluation: Path) -> dict[str, float]:
    """What was measured, with the energy and the CO2 of the training, by the names of the files."""
    cost: dict[str, float] = {}
    for file, names in ((record, _COSTS), (evaluation, ("test_ms_per_image",))):
        measured = read_table(file).get("cost") or {}
        try:
            known = {name: float(measured[name]) for name in names if measured.get(name) is not None}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file}: its cost is not of this form ({type(error).__name__}: {error}); make it "
                             "again") from None
        for name, value in known.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{file}: cost.{name} is {value}, expected a number from 0; make it again")
        cost |= known
    return _recorded(record) | cost


def _recorded(file: Path) -> dict[str, float]:
    """What a record of before there were costs says of them: training time, all epochs, and parameters."""
    record = read_table(file)
    try:
        cost = {}
        if "train_seconds" in record and "train" in record.get("split", {}):
            cost["train_ms_per_image"] = 1000 * float(record["train_seconds"]) / record["split"]["train"]
        if "milliseconds_per_image" in record:  # a baseline, of which one fit counts as training
            cost["train_ms_per_image"] = float(record["milliseconds_per_image"]["training"])
        if record.get("parameters"):
            cost["parameters"] = float(record["parameters"]["total"])
        return cost
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{file}: not the record of a training ({type(error).__name__}: {error}); restore "
                         "it") from None
