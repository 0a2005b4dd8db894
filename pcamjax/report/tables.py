"""Tables in plain text, for the terminal."""

import math

from pcamjax.evaluation.metrics import Metrics

COLUMNS = ("accuracy", "precision", "recall", "f1", "specificity", "auc")


def metric_table(metrics: dict[str, Metrics]) -> str:
    """One line a split: the number of patches and the thesis' metrics in per cent; an undefined one is a dash."""
    lines = [f"{'split':<8}{'patches':>9}" + "".join(f"{name:>13}" for name in COLUMNS)]
    for split, row in metrics.items():
        values = (getattr(row, name) for name in COLUMNS)
        lines.append(f"{split:<8}{row.n:>9}" + "".join(f"{'-' if math.isnan(v) else f'{100 * v:.2f}':>13}" for v in values))
    return "\n".join(lines)
