"""The thesis' figures for the runs that are compared, saved as PNG, each with what it shows and what is absent."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
from pcamjax.report.html import embed

_SEED = 0
_SHOWN, _MAPPED = 6, 4  # patches: as many as the thesis shows
_FRONTIERS = (("training time", "train_ms_per_image", 1, "ms an image, all epochs"),
              ("inference time", "test_ms_per_image", 1, "ms an image"),
              ("size", "bytes", 1e-6, "MB on disk"),
              ("CO2", "co2_kg", 1, "kg of CO2 for the training"))


class Galleries:
    """Makes the figures of a comparison into one folder.

    Args:
      models: the rows of the comparison, those without runs too.
      split: the part that the runs were evaluated on.
    """

    def __init__(self, models: Sequence[Model], split: str, folder: Path):
        self._models, self._split, self._folder = models, split, folder

    def data(self, runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
        """Figures 3.2 and 3.3: six training patches, and the classes in each part, of the first run's split."""
        titles = ("Figure 3.2. Six training patches with their labels",
                  "Figure 3.3. Classes in each part of the split")
        try:
            patches, split = _open_data(runs[0])
        except InputError as error:
            return [{"title": title, "absent": f"Not drawn, for want of the patches of {runs[0].name}: {error}."}
                    for title in titles]
        labelled = split.indices.get("train", np.array([], np.int64))
        labelled = labelled[patches.labels[labelled] >= 0]
        shown = np.sort(np.random.default_rng(_SEED).permutation(labelled)[:_SHOWN])
        counts = {part: tuple(int(np.sum(patches.labels[split.indices[part]] == label)) for label in figures.CLASSES)
                  for part in PARTS if part in split.indices}
        sizes = "; ".join(f"{part}: {healthy:,} healthy, {metastasis:,} metastasis, {unlabelled:,} unlabelled"
                          for part, (healthy, metastasis, unlabelled) in counts.items())
        return [
            {"title": titles[0], "note": f"Drawn at random (seed {_SEED}) from the {len(labelled):,} of the training "
             f"part of {runs[0].name}. The square is the centre 32×32, which alone decides the label.",
             "pictures": [self._picture(figures.patch_grid(patches.images[shown], patches.labels[shown]), "figure_3_2",
                                        f"In order: {', '.join(patches.ids[shown].tolist())}.")]},
            {"title": titles[1], "note": f"Split of {runs[0].name}: {split.description}.",
             "pictures": [self._picture(figures.class_proportions(counts), "figure_3_3", f"{sizes}.")]}]

    def of_family(self, family: str, chapter: Sequence[str], title: str) -> list[dict[str, Any]]:
        """Learning curves, confusion matrices and ROC curves of a family, numbered as `chapter` says."""
        chosen = [model for model in self._models if model.published.family in family.split(" and ")]
        run = [model for model in chosen if model.runs]
        absent = ", ".join(model.title for model in chosen if not model.runs)
        absent = f"Not run: {absent}." if absent else ""
        curves, matrices, rocs = (number and f"Figure {number}. {title}: " for number in chapter)
        learnt = [model for model in run if any(np.isfinite(values).any() for name, values in
                                                model.runs[0].history.items() if name.startswith(("train_", "valid_")))]
        made = [{"title": f"{curves}learning curves", "absent": absent, "note": "",
                 "pictures": [self._of_model(figures.learning_curves(model.runs[0].history), chapter[0], model)
                              for model in learnt]}] if curves else []
        made.append({"title": f"{matrices}confusion matrices", "absent": absent,
                     "note": "Patches, and per cent of each true class.",
                     "pictures": [self._of_model(figures.confusion_matrix(model.runs[0].metrics), chapter[1], model)
                                  for model in run]})
        drawn = {model.title: (roc_curve(run.predictions.labels, run.predictions.scores), run.metrics.auc)
                 for model in run for run in model.runs[:1] if run.metrics.positives and run.metrics.negatives}
        made.append({"title": f"{rocs}ROC curves", "absent": absent, "note": "",
                     "pictures": [self._picture(compared.roc_curves(drawn), f"figure_{_file(chapter[2])}",
                                                f"AUC on “{self._split}”.")] if drawn else []})
        return made

    def heat_maps(self) -> dict[str, Any]:
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
        return {"title": "Figure 4.7. Grad-CAM of patches rightly called metastasis", "pictures": pictures,
                "note": "A map says where the network looked; it does not say that it was right to.",
                "absent": f"Absent: {', '.join(absent)}." if absent else ""}

    def times(self) -> Iterator[dict[str, Any]]:
        """Figures 5.1 and 5.2: accuracy against time, as measured here and as published."""
        for number, what, name, place in (("5.1", "training", "train_ms_per_image", 0),
                                          ("5.2", "test", "test_ms_per_image", 1)):
            cost = f"{what} time, ms an image"
            panels = [compared.Panel("measured here", cost, self._measured(name, 1)),
                      compared.Panel("published, measured on other data", cost, [
                          compared.Point(model.title, model.published.family, model.published.milliseconds[place],
                                         model.published.metrics[0])
                          for model in self._models if None not in (model.published.milliseconds[place],
                                                                    model.published.metrics[0])])]
            figure = compared.accuracy_against_cost(panels, frontier=False)
            yield {"title": f"Figure {number}. Accuracy and {what} time", "note": "", "absent": self._without(name),
                   "pictures": [self._picture(figure, f"figure_{_file(number)}", "Triangles are networks, circles "
                                              "classical models. The two panels have scales of their own.")]}

    def frontier(self) -> dict[str, Any]:
        """Accuracy against training time, inference time, size and CO2, with the models that none beats in both."""
        panels = [compared.Panel(title, axis, self._measured(name, scale)) for title, name, scale, axis in _FRONTIERS]
        title = "Frontier of accuracy against cost (not in the thesis)"
        absent = " ".join(filter(None, (self._without(name, f"{what}: ") for what, name, *_ in _FRONTIERS)))
        if not any(panel.points for panel in panels):
            return {"title": title, "absent": f"Not drawn. {absent}"}
        figure = compared.accuracy_against_cost(panels, frontier=True)
        return {"title": title, "note": "On the line: no other model here is as accurate for less, or more accurate "
                "for as much. It knows nothing of intervals.", "absent": absent,
                "pictures": [self._picture(figure, "frontier", "As measured here.")]}

    def _measured(self, cost: str, scale: float) -> list[compared.Point]:
        points = [compared.Point(model.title, model.published.family, scale * model.cost(cost),
                                 100 * model.mean("accuracy")) for model in self._models if model.runs]
        return [point for point in points if np.isfinite(point.cost + point.accuracy)]

    def _without(self, cost: str, what: str = "") -> str:
        names = [model.title for model in self._models if model.runs and not np.isfinite(model.cost(cost))]
        return f"{what}Not measured of {', '.join(names)}." if names else ""

    def _of_model(self, figure: Figure, number: str, model: Model, run: ComparedRun | None = None) -> dict[str, Any]:
        run = run or model.runs[0]
        of_several = f" (run {run.name}, of {len(model.runs)})" if len(model.runs) > 1 else ""
        return self._picture(figure, f"figure_{_file(number)}_{_file(run.name)}", f"{model.title}{of_several}")

    def _picture(self, figure: Figure, name: str, caption: str) -> dict[str, Any]:
        return {"picture": embed(figure, self._folder / f"{name}.png", caption), "caption": caption}


def _file(text: str) -> str:
    """A number or a name as part of a file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in text)


def _open_data(run: ComparedRun) -> tuple[Patches, Split]:
    data = run.config.get("data")
    if not isinstance(data, dict) or not data.get("path") or not isinstance(data.get("split"), dict):
        raise InputError("its configuration names no store and split")
    patches = Patches.open(data["path"])
    if patches.sha256 != run.predictions.meta.get("store_sha256"):
        raise InputError(f"{data['path']}: is another store than the one of its predictions")
    return patches, make_split(patches, **data["split"])
