"""Tables in plain text, for the terminal."""

import math
from typing import Any

from pcamjax.evaluation.metrics import Metrics

COLUMNS = ("accuracy", "precision", "recall", "f1", "specificity", "auc")


def metric_table(metrics: dict[str, Metrics]) -> str:
    """One line a split: the number of patches and the thesis' metrics in per cent; an undefined one is a dash."""
    lines = [f"{'split':<8}{'patches':>9}" + "".join(f"{name:>13}" for name in COLUMNS)]
    for split, row in metrics.items():
        values = (getattr(row, name) for name in COLUMNS)
        cells = ("-" if math.isnan(value) else f"{100 * value:.2f}" for value in values)
        lines.append(f"{split:<8}{row.n:>9}" + "".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def interval_rows(intervals: dict[str, dict[str, float | None]]) -> list[tuple[str, str]]:
    """The names of metrics and "value [low, high]", fractions of 1, as `evaluation/<split>.json` holds them."""
    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}"
    return [(name.replace("_", " "), f"{text(each['value'])} [{text(each['low'])}, {text(each['high'])}]")
            for name, each in intervals.items()]


def interval_table(assessment: dict[str, Any]) -> str:
    """One line a metric with its interval, and what was resampled."""
    rows = [f"  {name:<28}{text}" for name, text in interval_rows(assessment["intervals"])]
    return "\n".join([f"{assessment['resampling']}:", *rows])
