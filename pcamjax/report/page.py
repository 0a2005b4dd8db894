"""A run folder -> `report.html`, the one file that a reader of the run is given."""

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pcamjax.errors import InputError
from pcamjax.evaluation import calibration
from pcamjax.evaluation.abstention import risk_coverage
from pcamjax.evaluation.metrics import Metrics, roc_curve
from pcamjax.explain.explanations import Explanations, read_explanations
from pcamjax.explain.names import OF_LAYERS, TITLES
from pcamjax.files import read_json
from pcamjax.inference.predictions import THRESHOLD, Predictions
from pcamjax.report import figures
from pcamjax.report.html import Picture, embed, write_page
from pcamjax.report.run_files import read_history, read_split, read_table
from pcamjax.report.tables import interval_rows

_PARTS = ("test", "valid", "train")
_COLUMNS = ("accuracy", "precision", "recall", "F1", "specificity", "AUC")
_COMPARED = 2  # of each group, method by method
_EXAMPLES = 8  # of each group: what fits a printed page
_GROUPS = (("true positives", "metastasis, called metastasis", 1, True),
           ("false negatives", "metastasis, called healthy", 1, False),
           ("false positives", "healthy, called metastasis", 0, True),
           ("true negatives", "healthy, called healthy", 0, False),
           ("unlabelled, called metastasis", "no label is known", -1, True),
           ("unlabelled, called healthy", "no label is known", -1, False))


def write_report(run: str | os.PathLike) -> Path:
    """Writes `report.html` and its figures from what the run folder holds, and says what it does not hold.

    Raises:
      InputError: `run` is not a run folder, or a file in it is damaged or does not fit the others.
    """
    run = Path(run)
    if not (run / "config.json").is_file():
        raise InputError(f"{run}: not a run folder (no config.json); name the --workdir of a training")
    config, environment, record = (read_table(run / f"{name}.json")
                                   for name in ("config", "environment", "record"))
    history = read_history(run / "metrics.jsonl")
    evaluated = {path.stem: (*read_split(run, path.stem), _assessment(path))
                 for path in sorted((run / "evaluation").glob("*.json"), key=_place)}
    explained = {path.stem: read_explanations(path)
                 for path in sorted((run / "explanations").glob("*.npz"), key=_place)}
    folder = run / "figures"
    return write_page(
        run / "report.html", "report.html",
        name=run.resolve().name,
        model=record.get("model") or dict(_flat(config)).get("model.name", "A network whose name is not recorded"),
        summary=_summary(run / "record.json", record, history),
        headline=_headline(evaluated),
        leaking=_leaking(evaluated, record),
        missing=list(_missing(run, environment, record, history, evaluated, explained)),
        columns=_COLUMNS,
        splits=[_split_section(name, *parts, folder) for name, parts in evaluated.items()],
        threshold=THRESHOLD,
        learning=_learning(history, folder),
        explanations=[{"split": name, "groups": list(_heat_maps(name, explanations, folder))}
                      for name, explanations in explained.items()],
        command=_command(environment),
        config=list(_flat(config)),
        environment=[row for row in _flat(environment) if row[0] != "command"],
    )


def _place(path: Path) -> tuple[int, str]:
    """Sorts the parts of a split, the one that counts most first."""
    return (_PARTS.index(path.stem) if path.stem in _PARTS else len(_PARTS), path.stem)


def _headline(evaluated: dict[str, tuple[Metrics, Predictions, dict]]) -> dict[str, Any] | None:
    for split, (metrics, predictions, _) in evaluated.items():
        values = dict(zip(_COLUMNS, _values(metrics), strict=True))
        return {"split": split, "patches": f"{metrics.n:,}",
                "leak": _leak(predictions.meta.get("leaks_slides")),
                "figures": [(values["AUC"], "AUC"), (values["accuracy"], "accuracy, %"),
                            (values["recall"], "recall (sensitivity), %"),
                            (values["specificity"], "specificity, %")]}
    return None


def _values(metrics: Metrics) -> list[str]:
    fractions = (metrics.accuracy, metrics.precision, metrics.recall, metrics.f1, metrics.specificity)
    return ["–" if np.isnan(value) else f"{100 * value:.2f}" for value in fractions] + [
        "–" if np.isnan(metrics.auc) else f"{metrics.auc:.4f}"]


def _leaking(evaluated: dict[str, tuple[Metrics, Predictions, dict]], record: dict[str, Any]) -> str:
    splits = [predictions.meta for _, predictions, _ in evaluated.values()] + [record.get("split") or {}]
    names = [meta.get("split_description") or meta.get("description") or meta.get("name", "split")
             for meta in splits if meta.get("leaks_slides")]
    return "; ".join(dict.fromkeys(map(str, names)))


def _missing(run: Path, environment: dict, record: dict, history: dict, evaluated: dict,
             explained: dict) -> Iterator[str]:
    if not environment:
        yield "environment.json: versions and hardware of the training"
    if not record:
        yield "record.json: the training has not ended, or was stopped from outside"
    if not history and "chosen" not in record:
        yield "metrics.jsonl: no epoch has ended"
    for path in sorted((run / "predictions").glob("*.npz"), key=_place):
        if path.stem not in evaluated:
            yield f"evaluation/{path.stem}.json: predicted, but not scored (or without labels)"
    if not evaluated:
        yield "evaluation: make it with python -m experiments.evaluate"
    if not explained and "chosen" not in record:
        yield "heat maps: make them with python -m experiments.explain"


def _summary(path: Path, record: dict[str, Any], history: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """The rows of the table "Run", as far as they are recorded."""
    try:
        return list(_summary_rows(record, history))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the record of a training ({type(error).__name__}: {error}); restore "
                         "it, or remove it and resume the training") from None


def _summary_rows(record: dict[str, Any], history: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    parameters, split, best = (record.get(name, {}) for name in ("parameters", "split", "best"))
    if parameters:
        yield "parameters", f"{parameters['total']:,}, of which {parameters['trainable']:,} are trained"
    if split:
        yield "split", f"{split.get('name')}: {split.get('description')}"
        yield "slides shared by training and evaluation", _leak(split.get("leaks_slides"))
        sizes = [f"{split[part]:,} {part}" for part in ("train", "valid", "test") if part in split]
        yield "patches", ", ".join(sizes)
    if "chosen" in record:  # a baseline, which has no epochs
        settings = ", ".join(f"{key} = {_text(value)}" for key, value in record["chosen"]["settings"].items())
        yield "fitted on", f"{record['fitted_on']:,} patches, {record['features']:,} features each"
        yield "settings", (f"{settings}; validation AUC {_text(record['chosen']['valid_auc'])}, the best of "
                           f"{len(record['candidates'])}")
    elif record:
        if weights := record.get("weights"):
            yield "weights at the start", (f"{weights['file']}, SHA-256 {weights['sha256']}, classifier "
                                           f"{weights['classifier']}")
        yield "training", f"epochs: {record['epochs']:,}, steps: {record['steps']:,}; {record['ended']}"
        for phase in record.get("phases", []) if len(record.get("phases", [])) > 1 else []:
            yield f"phase {phase['name']}", (f"{phase['steps']:,} steps, {phase['trainable']:,} parameters trained, "
                                             f"{phase['seconds'] / 60:,.1f} minutes")
        minutes, speed = record["train_seconds"] / 60, record["images_per_second"]
        yield "time", f"{minutes:,.1f} minutes, {speed:,.0f} images/s"
    elif history:
        yield "epochs so far", str(len(history["epoch"]))
    if best:
        yield "best epoch", f"{best['epoch']}, with {best['metric']} {_text(best['value'])}"
    if cost := record.get("cost"):
        flops = cost["flops_per_image"]
        yield "cost of training", (f"{cost['train_ms_per_image']:,.2f} ms for each training patch, on "
                                   f"{cost['device']}; {_energy(cost)}")
        yield "size", (f"{cost['bytes'] / 1e6:,.2f} MB on disk to predict with"
                       + (f", {flops / 1e9:.3f} GFLOPs for an image" if flops else ""))


def _energy(cost: dict[str, Any]) -> str:
    """Energy and CO2 with how and where they were measured."""
    if cost["energy_kwh"] is None:
        return "energy and CO2: not measured"
    return (f"{cost['energy_kwh']:.3g} kWh, {1000 * cost['co2_kg']:.3g} g of CO2 by the electricity of "
            f"{cost['region']} ({cost['method']})")


def _leak(leaks: bool | None) -> str:
    return {True: "yes", False: "no", None: "not known"}[leaks]


def _assessment(path: Path) -> dict[str, Any]:
    """The texts of an evaluation's assessment and cost; nothing where it has none."""
    try:
        record = read_json(path)
        made, cost = record.get("assessment"), record.get("cost")
        texts = {"cost": cost and (f"{cost['test_ms_per_image']:,.2f} ms an image, compilation left out; "
                                   f"{_energy(cost)}"), "resampling": None}
        return texts if made is None else texts | {
            "intervals": interval_rows(made["intervals"]), "resampling": made["resampling"],
            "choices": list(_choices(made["choices"]))}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its assessment is not of this form ({type(error).__name__}: {error}); make it "
                         "again: python -m experiments.evaluate") from None


def _choices(choices: dict[str, Any] | str) -> Iterator[tuple[str, str]]:
    """What was chosen on validation and what it gave, or why nothing was."""
    if isinstance(choices, str):
        yield "nothing", choices.removeprefix("none: ")
        return
    temperature = choices["temperature"]
    yield f"temperature {temperature['value']:.3f}", _joined(temperature["intervals"])
    for point in choices["operating_points"]:
        yield f"{point['rule']}: score > {point['threshold']:.4f}", _joined(point["intervals"])


def _joined(intervals: dict[str, dict[str, float | None]]) -> str:
    return "; ".join(f"{name} {text}" for name, text in interval_rows(intervals))


def _split_section(name: str, metrics: Metrics, predictions: Predictions, assessment: dict[str, Any],
                   folder: Path) -> dict[str, Any]:
    meta = predictions.meta
    description = meta.get("split_description") or meta.get("split", "")
    roc = None
    if metrics.positives and metrics.negatives:
        curve = roc_curve(predictions.labels, predictions.scores)
        roc = embed(figures.roc(curve, metrics.auc), folder / f"roc_{name}.png",
                    f"ROC curve on {name}, AUC {metrics.auc:.4f}")
    (tn, fp), (fn, tp) = metrics.confusion
    confusion = embed(figures.confusion_matrix(metrics), folder / f"confusion_{name}.png",
                      f"confusion matrix on {name}: {tp} true and {fp} false positives, {tn} true and "
                      f"{fn} false negatives")
    reliability = embed(figures.reliability_diagram(calibration.reliability(predictions.labels, predictions.scores)),
                        folder / f"reliability_{name}.png", f"reliability diagram on {name}")
    risk = embed(figures.risk_curve(risk_coverage(predictions)), folder / f"risk_{name}.png",
                 f"risk against coverage on {name}")
    return {"name": name, "patches": f"{metrics.n:,}", "positives": f"{metrics.positives:,}",
            "figures": _values(metrics), "confusion": confusion, "roc": roc, "reliability": reliability, "risk": risk,
            "assessment": assessment, "averaged": meta.get("averaged"),
            "description": description, "leak": _leak(meta.get("leaks_slides")),
            "checkpoint": meta.get("checkpoint", "not recorded")}


def _learning(history: dict[str, np.ndarray], folder: Path) -> Picture | None:
    curves = {name: values for name, values in history.items() if name.startswith(("train_", "valid_"))}
    if not any(np.isfinite(values).any() for values in curves.values()):
        return None
    return embed(figures.learning_curves(history), folder / "learning_curves.png",
                 "loss, accuracy and AUC of training and validation by epoch")


def _heat_maps(split: str, made: Explanations, folder: Path) -> Iterator[dict[str, Any]]:
    """The first method's maps of each group of calls, then all methods' side by side."""
    first = made.methods[0]
    looked_at = f" at {made.layer}" if first in OF_LAYERS else ""
    compared: list[tuple[int, str]] = []
    for title, meaning, label, called in _GROUPS:
        group = np.flatnonzero((made.labels == label) & ((made.scores > THRESHOLD) == called))
        if not len(group):
            continue
        shown = group[:_EXAMPLES]
        figure = figures.heat_map_grid(
            made.images[shown], made.maps[0, shown], made.scores[shown], made.labels[shown],
            made.peaks[0, shown] == 0, scale=f"{TITLES[first]} of {made.target}{looked_at}")
        compared += [(row, title) for row in group[:_COMPARED]]
        file = folder / f"heat_maps_{split}_{title.replace(', ', '_').replace(' ', '_')}.png"
        yield {"title": f"{title} ({meaning})",
               "caption": f"{len(shown)} of the {len(group)} explained, in order: "
                          f"{', '.join(made.ids[shown].tolist())}.",
               "picture": embed(figure, file, f"heat maps of {title} on {split}")}
    if len(made.methods) > 1 and compared:
        rows, titles = zip(*compared, strict=True)
        shown = np.array(rows)
        figure = figures.method_grid(made.images[shown], made.maps[:, shown],
                                     [TITLES[name] for name in made.methods],
                                     [name in OF_LAYERS for name in made.methods], titles,
                                     scale=f"of {made.target}; CAMs at {made.layer}; each map from 0 to its maximum")
        yield {"title": "method by method", "caption": f"In order: {', '.join(made.ids[shown].tolist())}.",
               "picture": embed(figure, folder / f"heat_maps_{split}_methods.png", f"heat maps by method on {split}")}


def _command(environment: dict[str, Any]) -> str:
    command = environment.get("command", "")
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command)


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested dictionaries, with dotted names."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)
