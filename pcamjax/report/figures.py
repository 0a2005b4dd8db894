"""The figures of the pages: arrays in, a matplotlib `Figure` out.

Colours differ in lightness as well as in hue, so that they hold in grey and for the colour-blind.
"""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pcamjax.evaluation.abstention import RiskCoverage
from pcamjax.evaluation.calibration import Reliability
from pcamjax.evaluation.metrics import Metrics, RocCurve
from pcamjax.files import atomic_file
from pcamjax.inference.predictions import THRESHOLD

HEALTHY, METASTASIS, UNLABELLED = "#9ecae1", "#a63603", "#d9d9d9"
CLASSES = {0: "healthy", 1: "metastasis", -1: "unlabelled"}
CENTRE = (32, 32)  # the square that bears the label: this offset and this size, in pixels of a 96x96 patch

_DARK = "#08306b"
_LINES = (("train", "#4292c6", "-", "o", 3.5, None), ("valid", _DARK, "--", "s", 5, "none"))
STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.edgecolor": "#555555", "legend.frameon": False,
    "xtick.color": "#333333", "ytick.color": "#333333", "figure.dpi": 150, "savefig.dpi": 150,
}


@matplotlib.rc_context(STYLE)
def learning_curves(history: dict[str, Float[np.ndarray, " epochs"]]) -> Figure:
    """Loss, accuracy and AUC after each epoch, of training and validation.

    `history` has "epoch" and any of "{train,valid}_{loss,accuracy,auc}"; a NaN leaves a gap. A dotted line stands where
    its "phase" changes.

    Raises:
      ValueError: there is no curve to draw.
    """
    panels = [name for name in ("loss", "accuracy", "auc")
              if any(np.isfinite(history.get(f"{part}_{name}", np.nan)).any() for part in ("train", "valid"))]
    if not panels:
        raise ValueError("no finite loss, accuracy or AUC to draw")
    figure = Figure(figsize=(3.1 * len(panels) + 0.4, 2.9), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for part, colour, dashes, marker, size, fill in _LINES:
            values = history.get(f"{part}_{name}")
            if values is not None and np.isfinite(values).any():
                axes.plot(history["epoch"], values, dashes, color=colour, label=part, marker=marker,
                          markersize=size, markerfacecolor=fill)
        for first in np.flatnonzero(np.diff(history.get("phase", [])) != 0) + 1:
            axes.axvline(history["epoch"][first] - 0.5, color="#777777", linestyle=":")
        axes.set(xlabel="epoch", title="AUC" if name == "auc" else name)
        if name != "loss":  # a fraction: room above 1 would promise what there is not
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.005))
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.legend()
    return figure


@matplotlib.rc_context(STYLE)
def roc(curve: RocCurve, auc: float) -> Figure:
    """A ROC curve with its area, the line of chance, and the point at which patches are called."""
    figure = Figure(figsize=(3.7, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="#777777", label="chance")
    axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=_DARK, linewidth=1.6,
              label=f"AUC {auc:.4f}")
    called = np.sum(curve.thresholds > THRESHOLD) - 1
    axes.plot(curve.false_positive_rate[called], curve.true_positive_rate[called], "o", color=METASTASIS,
              label=f"score > {THRESHOLD:g}", clip_on=False)
    axes.set(xlabel="1 − specificity (false positive rate)", ylabel="recall (true positive rate)",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right")
    return figure


@matplotlib.rc_context(STYLE)
def reliability_diagram(diagram: Reliability) -> Figure:
    """The fraction of metastasis against the mean score, bin by bin, and below it how many patches each bin has."""
    figure = Figure(figsize=(3.7, 3.7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], ":", color="#777777", label="calibrated")
    filled = diagram.count > 0
    above.plot(diagram.mean_score[filled], diagram.positive_fraction[filled], "o-", color=_DARK, markersize=4)
    above.set(ylabel="fraction of metastasis", xlim=(-0.01, 1.01), ylim=(-0.03, 1.03))
    above.legend(loc="lower left", bbox_to_anchor=(0, 1))  # outside: with few patches a bin the curve goes anywhere
    below.bar(diagram.edges[:-1], diagram.count, np.diff(diagram.edges), align="edge", color=HEALTHY,
              edgecolor="#555555", linewidth=0.4)
    below.set(xlabel="score", ylabel="patches")
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    return figure


@matplotlib.rc_context(STYLE)
def risk_curve(curve: RiskCoverage) -> Figure:
    """How often a model errs if it answers only a part of the patches, those of which it is surest."""
    figure = Figure(figsize=(3.7, 3.7), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.coverage, curve.risk, color=_DARK, linewidth=1.6, label=f"area {curve.area:.4f}")
    axes.set(xlabel="coverage (fraction of patches answered)", ylabel="risk (fraction of these called wrongly)",
             xlim=(0, 1.01), ylim=(0, max(0.02, 1.1 * float(curve.risk.max()))))
    axes.legend(loc="best")
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def confusion_matrix(metrics: Metrics) -> Figure:
    """Counts and percentages of each true class; the shade is the percentage."""
    percent = np.array(metrics.confusion_percent, dtype=float)
    figure = Figure(figsize=(3.5, 3.3), layout="constrained")
    axes = figure.subplots()
    shades = matplotlib.colormaps["Blues"](np.nan_to_num(percent) / 110)[..., :3]
    axes.imshow(shades)
    for row, column in np.ndindex(2, 2):
        share = percent[row, column]
        look = {"color": "white" if shades[row, column] @ (0.299, 0.587, 0.114) < 0.5 else "black",
                "ha": "center", "va": "center"}
        count = metrics.confusion[row][column]
        axes.text(column, row - 0.08, f"{count:,}", fontsize=14, fontweight="bold", **look)
        axes.text(column, row + 0.2, "–" if np.isnan(share) else f"{share:.2f} %", **look)
    names = [CLASSES[0], CLASSES[1]]
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.set(xlabel="called", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def heat_map_grid(images: UInt8[np.ndarray, "k h w 3"], maps: Float[np.ndarray, "k h w"],
                  scores: Float[np.ndarray, " k"], labels: Int[np.ndarray, " k"],
                  is_zero: Bool[np.ndarray, " k"], scale: str) -> Figure:
    """Patch, map and overlay of each example, two a row, with the centre square and one scale for all.

    maps in [0, 1]; is_zero: the map was zero everywhere, so that its colour says nothing; scale: what the
    colours mean.
    """
    rows = -(-len(images) // 2)
    figure = Figure(figsize=(8.6, 1.62 * rows + 0.75))
    top, bottom = 0.25 / figure.get_figheight(), 0.72 / figure.get_figheight()
    grid = figure.add_gridspec(rows, 7, width_ratios=[1, 1, 1, 0.22, 1, 1, 1], left=0.01, right=0.99,
                               top=1 - top, bottom=bottom, wspace=0.04, hspace=0.24)
    colours = matplotlib.colormaps["viridis"]
    for index, (image, heat) in enumerate(zip(images, maps, strict=True)):
        row, first = index // 2, 4 * (index % 2)
        panels = [figure.add_subplot(grid[row, first + column]) for column in range(3)]
        for axes, shown, name in zip(panels, (image, colours(heat), _overlay(image, colours(heat), heat)),
                                     ("patch", "map", "overlay"), strict=True):
            _show(axes, shown)
            _draw_centre(axes)
            if row == 0:
                axes.set_title(name, fontsize=8, fontweight="normal", color="#555555", pad=3)
        note = "; map is zero everywhere" if is_zero[index] else ""
        panels[1].set_xlabel(f"{CLASSES[int(labels[index])]}, score {scores[index]:.3f}{note}", labelpad=3,
                             fontsize=8.5)
    _colour_bar(figure, colours, scale, bottom=bottom * 0.36)
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def method_grid(images: UInt8[np.ndarray, "k h w 3"], maps: Float[np.ndarray, "m k h w"],
                titles: Sequence[str], over_patch: Sequence[bool], captions: Sequence[str], scale: str) -> Figure:
    """The patches in a row, and below it a row for each method's maps, with one scale for all.

    maps in [0, 1], of which one that is zero everywhere says so; titles: the methods'; over_patch: whether a method's
    maps are laid over the patches, in which single pixels would drown; captions: the patches'.
    """
    m, k = maps.shape[:2]
    figure = Figure(figsize=(1.08 * k + 1.4, 1.12 * (m + 1) + 0.95))
    height, width = figure.get_figheight(), figure.get_figwidth()
    grid = figure.add_gridspec(m + 1, k, left=1.37 / width, right=1 - 0.03 / width, top=1 - 0.3 / height,
                               bottom=0.65 / height, wspace=0.05, hspace=0.06)
    colours = matplotlib.colormaps["viridis"]
    for column, image in enumerate(images):
        for row in range(m + 1):
            axes = figure.add_subplot(grid[row, column])
            heat = maps[row - 1, column] if row else np.zeros(image.shape[:2])
            laid_over = row == 0 or over_patch[row - 1]
            _show(axes, _overlay(image, colours(heat), heat) if laid_over else colours(heat))
            _draw_centre(axes)
            if row and not heat.any():
                axes.set_xlabel("zero everywhere", fontsize=7, labelpad=-9, color="#555555")
            if column == 0:
                axes.set_ylabel(titles[row - 1] if row else "patch", rotation=0, ha="right", va="center", fontsize=8)
            if row == 0:
                axes.set_title(captions[column], fontsize=7.5, fontweight="normal", pad=3)
    _colour_bar(figure, colours, scale, bottom=0.3 / height)
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def patch_grid(images: UInt8[np.ndarray, "k h w 3"], labels: Int[np.ndarray, " k"]) -> Figure:
    """Patches with the centre square and their labels, eight a row."""
    columns, rows = 8, -(-len(images) // 8)
    figure = Figure(figsize=(1.1 * columns, 1.27 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, image, label in zip(grid, images, labels, strict=False):
        _show(axes, image)
        _draw_centre(axes)
        axes.set_xlabel(CLASSES[int(label)], fontsize=8, labelpad=2)
    for axes in grid[len(images):]:
        axes.set_axis_off()
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def augmentation_grid(originals: UInt8[np.ndarray, "k h w 3"],
                      augmented: UInt8[np.ndarray, "k m h w 3"]) -> Figure:
    """A row for each patch: as it is, then m times as training sees it."""
    k, m = augmented.shape[:2]
    figure = Figure(figsize=(1.1 * (m + 1) + 0.15, 1.12 * k + 0.2))
    height = figure.get_figheight()
    grid = figure.add_gridspec(k, m + 2, width_ratios=[1, 0.15, *[1] * m], left=0.01, right=0.99,
                               top=1 - 0.22 / height, bottom=0.01, wspace=0.05, hspace=0.05)
    for row in range(k):
        panels = [figure.add_subplot(grid[row, column]) for column in range(m + 2) if column != 1]
        for axes, image in zip(panels, (originals[row], *augmented[row]), strict=True):
            _show(axes, image)
            _draw_centre(axes)
        if row == 0:
            panels[0].set_title("original", fontsize=8, pad=3)
            panels[1].set_title("augmented", fontsize=8, pad=3, loc="left")
    return figure


@matplotlib.rc_context(STYLE | {"axes.grid": False})
def class_proportions(counts: dict[str, tuple[int, int, int]]) -> Figure:
    """One bar a split, of its shares; `counts` are (healthy, metastasis, unlabelled) patches of each."""
    figure = Figure(figsize=(7.2, 0.42 * len(counts) + 0.85), layout="constrained")
    axes = figure.subplots()
    shares = 100 * np.array([np.array(row) / max(sum(row), 1) for row in counts.values()])
    left = np.zeros(len(counts))
    looks = ((CLASSES[0], HEALTHY, "black", ""), (CLASSES[1], METASTASIS, "white", ""),
             (CLASSES[-1], UNLABELLED, "black", "///"))
    for column, (name, colour, ink, hatch) in enumerate(looks):
        if not shares[:, column].any():
            continue
        axes.barh(range(len(counts)), shares[:, column], 0.72, left, color=colour, hatch=hatch,
                  edgecolor="white", linewidth=0, label=name)
        for row, share in enumerate(shares[:, column]):
            if share >= 9:  # a narrower share has no room for its figure, which the table beside has
                axes.text(left[row] + share / 2, row, f"{share:.1f} %", color=ink, ha="center", va="center",
                          bbox={"facecolor": colour, "edgecolor": "none", "pad": 1} if hatch else None)
        left += shares[:, column]
    axes.set_yticks(range(len(counts)), list(counts))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(xlim=(0, 100), xlabel="per cent of the patches")
    figure.legend(loc="outside upper right", ncols=3, handlelength=1.2)
    return figure


class RooflinePoint(NamedTuple):
    """A network at a task: FLOPs a byte that moves, FLOP/s, and those of the fastest other framework, NaN for none."""

    network: str
    task: str
    intensity: float
    speed: float
    peer_speed: float


@matplotlib.rc_context(STYLE)
def roofline(points: Sequence[RooflinePoint], product: float, bandwidth: float) -> Figure:
    """Speed against intensity, under what a product of matrices (FLOP/s) and the memory (bytes/s) allow.

    A panel is a task, a dot ours, the bar joined to it the fastest other framework, put at our intensity.
    """
    tasks = list(dict.fromkeys(point.task for point in points))
    figure = Figure(figsize=(3.7 * len(tasks) + 0.5, 4.2), layout="constrained")
    reach = [point.intensity for point in points] + [product / bandwidth]
    speeds = [speed for point in points for speed in (point.speed, point.peer_speed)] + [product]
    line = (np.nanmax(speeds) / np.nanmin(speeds)) ** 0.035  # by which labels must differ not to overlap
    intensities = np.geomspace(min(reach) / 1.5, max(reach) * 2.5, 200)
    for axes, task in zip(figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0], tasks, strict=True):
        axes.plot(intensities, np.minimum(product, bandwidth * intensities) / 1e9, color="black", linewidth=1.4,
                  label="product of matrices, memory")
        chosen = [point for point in points if point.task == task]
        for point in chosen:
            axes.plot([point.intensity] * 2, [point.speed / 1e9, point.peer_speed / 1e9], color="#777777",
                      linewidth=0.8, zorder=1)
        x = [point.intensity for point in chosen]
        axes.plot(x, [point.peer_speed / 1e9 for point in chosen], "_", color="#777777", markersize=10,
                  markeredgewidth=1.6, label="fastest peer")
        axes.plot(x, [point.speed / 1e9 for point in chosen], "o", color=_DARK, markersize=5, label="pcamjax")
        lowest = 0.0
        for point in sorted(chosen, key=lambda point: point.speed):
            lowest = max(point.speed / 1e9, lowest * line)
            axes.annotate(point.network, (point.intensity, lowest), (7, 0), textcoords="offset points", va="center",
                          fontsize=7)
        axes.set(xscale="log", yscale="log", title=task, xlabel="FLOPs a byte")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(NullLocator())
    figure.axes[0].set_ylabel("GFLOP/s")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def save(figure: Figure, path: str | os.PathLike) -> bytes:
    """Writes the figure as PNG or SVG, as the path's suffix says, atomically, and returns the bytes written."""
    buffer = io.BytesIO()
    suffix = Path(path).suffix[1:]
    with matplotlib.rc_context({"svg.hashsalt": "pcamjax"}):  # the same figure has the same bytes
        figure.savefig(buffer, format=suffix, metadata={"Date": None} if suffix == "svg" else {"Software": None})
    with atomic_file(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def _colour_bar(figure: Figure, colours: matplotlib.colors.Colormap, title: str, bottom: float) -> None:
    """A bar from 0 to 1 at the foot of a figure."""
    axes = figure.add_axes((0.3, bottom, 0.4, 0.11 / figure.get_figheight()))
    scalar = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), colours)
    bar = figure.colorbar(scalar, cax=axes, orientation="horizontal", ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=7.5, length=2)
    axes.set_title(title, fontsize=8, fontweight="normal", pad=3)


def _overlay(image: UInt8[np.ndarray, "h w 3"], colours: Float[np.ndarray, "h w 4"],
             heat: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """The colours over the patch, thinner where the map is low, so that tissue stays visible there."""
    weight = 0.6 * heat[..., None]
    return (1 - weight) * image / 255 + weight * colours[..., :3]


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _draw_centre(axes: Axes) -> None:
    """White on black: visible on any tissue."""
    start, size = CENTRE
    for colour, width in (("black", 1.8), ("white", 0.8)):
        axes.add_patch(Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor=colour,
                                 linewidth=width))
