"""The thesis' figures for the runs that are compared, as PNG, plots as SVG too, with what each shows and lacks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from pcamjax.data.splits import PARTS, Split, make_split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.evaluation.metrics import roc_curve
from pcamjax.explain.names import TITLES
from pcamjax.inference.predictions import THRESHOLD
from pcamjax.report import comparison_figures as compared
from pcamjax.report import figures
from pcamjax.report.compared_runs import ComparedRun, Model
from pcamjax.report.html import Picture, embed

_SEED = 0
_SHOWN, _MAPPED = 6, 4  # patches: as many as the thesis shows
_FRONTIERS = (("training time", "train_ms_per_image", 1.0, "ms an image, all epochs"),
              ("inference time", "test_ms_per_image", 1.0, "ms an image"),
              ("size", "bytes", 1e-6, "MB on disk"),
              ("CO2", "co2_kg", 1.0, "kg of CO2 for the training"))


class Captioned(NamedTuple):
    """A picture and what it shows."""

    picture: Picture
    caption: str


class Gallery(NamedTuple):
    """A figure of the thesis or of ours: a picture or one a model, what has to be known, and what is absent."""

    title: str
    pictures: list[Captioned]
    note: str = ""
    absent: str = ""


class Galleries:
    """Makes the figures of a comparison into one folder.

    Args:
      models: the rows of the comparison, those without runs too.
      split: the part that the runs were evaluated on.
    """

    def __init__(self, models: Sequence[Model], split: str, folder: Path):
        self._models, self._split, self._folder = models, split, folder

    def data(self, runs: Sequence[ComparedRun]) -> list[Gallery]:
        """Figures 3.2 and 3.3: six training patches, and the classes in each part, of the first run's split."""
        titles = ("Figure 3.2. Six training patches with their labels",
                  "Figure 3.3. Classes in each part of the split")
        try:
            patches, split = _open_data(runs[0])
        except InputError as error:
            return [Gallery(title, [], absent=f"Not drawn, for want of the patches of {runs[0].name}: {error}.")
                    for title in titles]
        labelled = split.indices.get("train", np.array([], np.int64))
        labelled = labelled[patches.labels[labelled] >= 0]
        shown = np.sort(np.random.default_rng(_SEED).permutation(labelled)[:_SHOWN])
        counts = {part: tuple(int(np.sum(patches.labels[split.indices[part]] == label)) for label in figures.CLASSES)
                  for part in PARTS if part in split.indices}
        sizes = "; ".join(f"{part}: {healthy:,} healthy, {metastasis:,} metastasis, {unlabelled:,} unlabelled"
                          for part, (healthy, metastasis, unlabelled) in counts.items())
        grid = self._picture(figures.patch_grid(patches.images[shown], patches.labels[shown]), "figure_3.2",
                             f"In order: {', '.join(patches.ids[shown].tolist())}.")
        bars = self._picture(figures.class_proportions(counts), "figure_3.3", f"{sizes}.")
        return [Gallery(titles[0], [grid], f"Drawn at random (seed {_SEED}) from the {len(labelled):,} of the training "
                        f"part of {runs[0].name}. The square is the centre 32×32, which alone decides the label."),
                Gallery(titles[1], [bars], f"Split of {runs[0].name}: {split.description}.")]

    def of_family(self, family: str, chapter: Sequence[str], title: str) -> list[Gallery]:
        """Learning curves, confusion matrices and ROC curves of a family, numbered as `chapter` says."""
        chosen = [model for model in self._models if model.published.family in family.split(" and ")]
        run = [model for model in chosen if model.runs]
        absent = ", ".join(model.title for model in chosen if not model.runs)
        absent = f"Not run: {absent}." if absent else ""
        curves, matrices, rocs = (f"Figure {number}. {title}: " if number[0].isdigit() else f"{title}: "
                                  for number in chapter)
        learnt = [model for model in run if any(np.isfinite(values).any() for name, values in
                                                model.runs[0].history.items() if name.startswith(("train_", "valid_")))]
        made = []
        if learnt or chapter[0].startswith("4"):
            made.append(Gallery(f"{curves}learning curves", [
                self._of_model(figures.learning_curves(model.runs[0].history), chapter[0], model) for model in learnt],
                absent=absent))
        made.append(Gallery(f"{matrices}confusion matrices", [
            self._of_model(figures.confusion_matrix(model.runs[0].metrics), chapter[1], model) for model in run],
            "Patches, and per cent of each true class.", absent))
        drawn = {model.title: (roc_curve(first.predictions.labels, first.predictions.scores), first.metrics.auc)
                 for model in run for first in model.runs[:1] if first.metrics.positives and first.metrics.negatives}
        rocs_drawn = [self._picture(compared.roc_curves(drawn), f"figure_{chapter[2]}",
                                    f"AUC on “{self._split}”.")] if drawn else []
        return [*made, Gallery(f"{rocs}ROC curves", rocs_drawn, absent=absent)]

    def heat_maps(self) -> Gallery:
        """Figure 4.7: Grad-CAM of patches rightly called metastasis, of each network that has been explained."""
        pictures, absent = [], []
        for model in self._models:
            if not model.is_network:
                continue
            explained = [run for run in model.runs
                         if run.explanations is not None and "grad_cam" in run.explanations.methods.tolist()]
            if not explained:
                absent.append(f"{model.title} ({'no Grad-CAM in its run folder' if model.runs else 'not run'})")
                continue
            maps = explained[0].explanations
            right = np.flatnonzero((maps.labels == 1) & (maps.scores > THRESHOLD))[:_MAPPED]
            if not len(right):
                absent.append(f"{model.title} (none of its explained patches was rightly called metastasis)")
                continue
            row = maps.methods.tolist().index("grad_cam")
            figure = figures.heat_map_grid(
                maps.images[right], maps.maps[row, right], maps.scores[right], maps.labels[right],
                maps.peaks[row, right] == 0, scale=f"{TITLES['grad_cam']} of {maps.target} at {maps.layer}")
            pictures.append(self._of_model(figure, "4.7", model, run=explained[0]))
        return Gallery("Figure 4.7. Grad-CAM of patches rightly called metastasis", pictures,
                       "A map says where the network looked; it does not say that it was right to.",
                       f"Absent: {', '.join(absent)}." if absent else "")

    def times(self) -> Iterator[Gallery]:
        """Figures 5.1 and 5.2: accuracy against time, as measured here and as published."""
        for number, what, name, place in (("5.1", "training", "train_ms_per_image", 0),
                                          ("5.2", "test", "test_ms_per_image", 1)):
            cost = f"{what} time, ms an image"
            panels = [compared.Panel("measured here", cost, self._measured(name, 1.0)),
                      compared.Panel("published, measured on other data", cost, [
                          compared.Point(model.title, model.published.family, model.published.milliseconds[place],
                                         model.published.metrics[0])
                          for model in self._models if None not in (model.published.milliseconds[place],
                                                                    model.published.metrics[0])])]
            figure = compared.accuracy_against_cost(panels, frontier=False)
            drawn = self._picture(figure, f"figure_{number}", "Triangles are networks, circles classical "
                                  "models. The two panels have scales of their own.")
            yield Gallery(f"Figure {number}. Accuracy and {what} time", [drawn], self._mixed().strip(),
                          self._without(name))

    def frontier(self) -> Gallery:
        """Accuracy against training time, inference time, size and CO2, with the models that none beats in both."""
        panels = [compared.Panel(title, axis, self._measured(name, scale)) for title, name, scale, axis in _FRONTIERS]
        title = "Frontier of accuracy against cost (not in the thesis)"
        absent = " ".join(filter(None, (self._without(name, f"{what}: ") for what, name, *_ in _FRONTIERS)))
        if not any(panel.points for panel in panels):
            return Gallery(title, [], absent="Not drawn: no cost was measured of any run here.")
        figure = compared.accuracy_against_cost(panels, frontier=True)
        drawn = self._picture(figure, "frontier", "As measured here.")
        return Gallery(title, [drawn], "On the line: no other model here is as accurate for less, or more accurate "
                       f"for as much. It knows nothing of intervals.{self._mixed()}", absent)

    def _measured(self, cost: str, scale: float) -> list[compared.Point]:
        points = [compared.Point(model.title, model.published.family, scale * model.cost(cost),
                                 100 * model.mean("accuracy")) for model in self._models if model.runs]
        return [point for point in points if np.isfinite(point.cost + point.accuracy)]

    def _mixed(self) -> str:
        parts = {(run.metrics.n, run.predictions.ids.tobytes()) for model in self._models for run in model.runs}
        return " Not all models here were measured on the same patches." if len(parts) > 1 else ""

    def _without(self, cost: str, what: str = "") -> str:
        names = [model.title for model in self._models if model.runs and not np.isfinite(model.cost(cost))]
        return f"{what}Not measured of {', '.join(names)}." if names else ""

    def _of_model(self, figure: Figure, number: str, model: Model, run: ComparedRun | None = None) -> Captioned:
        run = run or model.runs[0]
        of_several = f" (run {run.name}, of {len(model.runs)})" if len(model.runs) > 1 else ""
        return self._picture(figure, f"figure_{number}_{run.name}", f"{model.title}{of_several}")

    def _picture(self, figure: Figure, name: str, caption: str) -> Captioned:
        name = name.replace("/", "_")  # of a run that goes by its path
        if not any(axes.images for axes in figure.axes):  # as lines, which scale
            figures.save(figure, self._folder / f"{name}.svg")
        return Captioned(embed(figure, self._folder / f"{name}.png", f"{name.replace('_', ' ')}: {caption}"), caption)


def _open_data(run: ComparedRun) -> tuple[Patches, Split]:
    data = run.config.get("data")
    if not isinstance(data, dict) or not data.get("path") or not isinstance(data.get("split"), dict):
        raise InputError("its configuration names no store and split")
    patches = Patches.open(data["path"])
    if patches.sha256 != run.predictions.meta.get("store_sha256"):
        raise InputError(f"{data['path']}: is another store than the one of its predictions")
    return patches, make_split(patches, **data["split"])
