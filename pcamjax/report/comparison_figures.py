"""The figures of many models side by side: arrays in, a matplotlib `Figure` out.

Models differ by marker and by line as well as by colour (Okabe and Ito 2008), so that figures hold in black and white.
"""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from matplotlib.transforms import blended_transform_factory

from pcamjax.evaluation.frontier import pareto_frontier
from pcamjax.evaluation.metrics import RocCurve
from pcamjax.report.figures import STYLE

# Dark enough for white paper: without the palette's yellow.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = "os^Dv<>PX*"
# Triangles are networks and circles classical models, as in the thesis.
LOOKS = {"scratch": ("^", "#d55e00", "#d55e00", "network from scratch"),
         "fine-tuned": ("v", "#0072b2", "none", "fine-tuned network"),
         "histogram": ("o", "#000000", "#000000", "colour histogram"),
         "features": ("o", "#009e73", "none", "network features")}


class Point(NamedTuple):
    """A model in a scatter plot: its name, its family (one of `LOOKS`), what it costs and its accuracy in per cent."""

    name: str
    family: str
    cost: float
    accuracy: float


class Panel(NamedTuple):
    """A scatter plot: its title, what its cost is, and the models, of which those with a NaN are left out."""

    title: str
    cost: str
    points: Sequence[Point]


@matplotlib.rc_context(STYLE)
def roc_curves(curves: dict[str, tuple[RocCurve, float]]) -> Figure:
    """The ROC curves of models with their areas: whole, and the corner in which good ones differ."""
    figure = Figure(figsize=(9.2, 4.1 + 0.19 * -(-len(curves) // 2)), layout="constrained")
    whole, corner = figure.subplots(1, 2)
    whole.plot([0, 1], [0, 1], ":", color="#777777", label="chance")
    for number, (name, (curve, auc)) in enumerate(curves.items()):
        marks = np.linspace(0, 1, 6)[:-1] + 0.03 * (number % 6)
        look = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _DASHES[number % len(_DASHES)],
                "linewidth": 1.4, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 4}
        for axes, end in ((whole, 1.0), (corner, 0.3)):
            at = np.unique(np.searchsorted(curve.false_positive_rate, end * marks).clip(0, len(curve[0]) - 1))
            axes.plot(curve.false_positive_rate, curve.true_positive_rate, markevery=at.tolist(),
                      label=f"{name}: {auc:.4f}" if axes is whole else None, **look)
    whole.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title="all", ylabel="recall (true positive rate)")
    corner.set(xlim=(-0.003, 0.303), ylim=(0.697, 1.003), title="upper left corner")
    for axes in (whole, corner):
        axes.set(xlabel="1 − specificity (false positive rate)", aspect="equal")
    figure.legend(loc="outside lower center", ncols=2, title="AUC", handlelength=4)
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_against_cost(panels: Sequence[Panel], *, frontier: bool) -> Figure:
    """Accuracy against costs, two panels a row; `frontier` joins the models that no other one beats in both.

    Raises:
      ValueError: no panel has a point.
    """
    shown = [panel._replace(points=[point for point in panel.points if np.isfinite(point.cost + point.accuracy)])
             for panel in panels]
    if not any(panel.points for panel in shown):
        raise ValueError("no model has both a cost and an accuracy")
    # In inches; at the right of each panel is room for the longest name.
    names = [point.name for panel in shown for point in panel.points]
    left, wide, room, above, below, foot = 0.65, 3.1, 0.3 + 0.062 * max(map(len, names)), 0.35, 0.6, 0.4
    high = max(2.3, 0.16 * max(len(panel.points) for panel in shown))
    rows = -(-len(shown) // 2)
    width, height = 2 * (left + wide + room), rows * (above + high + below) + foot
    figure = Figure(figsize=(width, height))
    families: dict[str, Line2D] = {}
    for number, panel in enumerate(shown):
        row, column = divmod(number, 2)
        bottom = height - (row + 1) * (above + high + below) + below
        axes = figure.add_axes(((left + column * width / 2) / width, bottom / height, wide / width, high / height))
        axes.set(title=panel.title, xlabel=panel.cost, ylabel="accuracy, %")
        if not panel.points:
            axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="#555555")
            axes.set(xticks=[], yticks=[])
            continue
        families |= _scatter(axes, panel.points, frontier, 0.155 / high)
    handles = [families[family] for family in LOOKS if family in families]
    if frontier and "frontier" in families:
        handles.append(families["frontier"])
    figure.legend(handles=handles, loc="lower center", ncols=len(handles))
    return figure


def _scatter(axes: Axes, points: Sequence[Point], frontier: bool, gap: float) -> dict[str, Line2D]:
    """Draws the points and, in a column at the right, their names; gives a handle a family for the legend.

    gap: between names, as a fraction of the height.
    """
    costs = np.array([point.cost for point in points])
    accuracy = np.array([point.accuracy for point in points])
    handles = {}
    if frontier:
        best = pareto_frontier(costs, accuracy)
        order = np.flatnonzero(best)[np.argsort(costs[best])]
        handles["frontier"], = axes.plot(costs[order], accuracy[order], drawstyle="steps-post", color="#555555",
                                         linewidth=1, label="frontier", zorder=1)
    for family, (marker, edge, fill, title) in LOOKS.items():
        chosen = [point for point in points if point.family == family]
        if chosen:
            handles[family], = axes.plot([point.cost for point in chosen], [point.accuracy for point in chosen], marker,
                                         color=edge, markerfacecolor=fill, markersize=6.5, markeredgewidth=1.3,
                                         label=title)
    margin = max(0.08 * float(np.ptp(accuracy)), 0.5)
    low, high = float(accuracy.min()) - margin, float(accuracy.max()) + margin
    axes.set_ylim(low, high)
    axes.margins(x=0.15)
    if costs.min() > 0 and costs.max() > 8 * costs.min():
        axes.set_xscale("log")
        axes.set_xlim(costs.min() / 1.8, costs.max() * 1.8)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    beside = blended_transform_factory(axes.transAxes, axes.transAxes)
    for point, place in zip(points, _spread((accuracy - low) / (high - low), gap), strict=True):
        axes.annotate(point.name, (point.cost, point.accuracy), (1.04, place), xycoords="data", textcoords=beside,
                      fontsize=7.5, va="center", ha="left", annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkB": 3})
    return handles


def _spread(places: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Moves places apart until neighbours have the gap, about as far up as down."""
    order = np.argsort(places, kind="stable")
    lifted, lowered = places[order].copy(), places[order].copy()
    for i in range(1, len(places)):
        lifted[i] = max(lifted[i], lifted[i - 1] + gap)
        lowered[-i - 1] = min(lowered[-i - 1], lowered[-i] - gap)
    middle = (lifted + lowered) / 2
    for i in range(1, len(places)):
        middle[i] = max(middle[i], middle[i - 1] + gap)
    spread = np.empty_like(middle)
    spread[order] = middle
    return spread
