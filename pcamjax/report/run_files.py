"""The files of a run folder that pages read."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import Metrics, read_evaluation
from pcamjax.files import parse_json, read_json
from pcamjax.inference.predictions import Predictions


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file.

    Raises:
      InputError: it is damaged, or no object.
    """
    table = read_json(path) if path.exists() else {}
    if not isinstance(table, dict):
        raise InputError(f"{path}: holds a {type(table).__name__}, expected an object; restore it")
    return table


def read_history(path: Path) -> dict[str, Float[np.ndarray, " epochs"]]:
    """The columns of metrics.jsonl, none where it is missing; of an epoch that was run again, the later line.

    Raises:
      InputError: a line is not an epoch's.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # what has no end yet is still being written
        rows = {row["epoch"]: row for row in map(parse_json, lines)}
        names = dict.fromkeys(name for row in rows.values() for name in row)
        return {name: np.array([row.get(name) for row in rows.values()], dtype=float) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a line is not an epoch's metrics as JSON ({type(error).__name__}: "
                         f"{error}); remove it") from None


def read_split(run: Path, part: str) -> tuple[Metrics, Predictions]:
    """The metrics of a part of the split, and the predictions that they belong to.

    Raises:
      InputError: one is missing or damaged, or they do not belong together.
    """
    path = run / "evaluation" / f"{part}.json"
    metrics, meta = read_evaluation(path)
    predictions = Predictions.load(run / "predictions" / f"{part}.npz")
    if meta != predictions.meta or metrics.n != len(predictions):
        raise InputError(f"{path}: does not belong to predictions/{part}.npz beside it; "
                         "make both again: python -m experiments.evaluate")
    return metrics, predictions
