"""Tables in plain text, for the terminal."""

import math

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
