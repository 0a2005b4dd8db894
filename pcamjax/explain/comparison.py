"""Methods of explanation side by side: where their maps point, whether the network follows them, what they cost.

Each stands beside chance, maps that look at no network, and itself on a network with random weights: PatchCamelyon's
label rule makes maps easy that are bright in the centre and know nothing.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from pcamjax.errors import InputError
from pcamjax.explain import faithfulness, localisation
from pcamjax.explain.faithfulness import Predict
from pcamjax.explain.intervals import mean_intervals
from pcamjax.explain.localisation import CENTRE_CHANCE
from pcamjax.explain.method_table import MethodRow
from pcamjax.explain.sanity import Method, Variables, spearman, ssim

Maps = Float[np.ndarray, "n 96 96"]
Masks = Bool[np.ndarray, "n 96 96"]
Measures = dict[str, Float[np.ndarray, " n"]]

CHANCE, GAUSSIAN, RANDOM_WEIGHTS = "chance", "centre Gaussian", "random weights"
CELL = 12  # pixels of a cell of "random cells": those of a feature map of 8x8
ALL = "all"


@dataclass(frozen=True)
class _Measured:
    """A row of the table before its means are taken: values patch by patch."""

    method: str
    weights: str
    placed: Measures
    other: Measures
    maps_per_second: float = np.nan


def compare_methods(methods: Mapping[str, Method], trained: Variables, fresh: Variables,
                    images: UInt8[np.ndarray, "n 96 96 3"], predict: Predict, *, masks: Masks | None = None,
                    groups: Mapping[str, Bool[np.ndarray, " n"]] | None = None, seed: int = 0,
                    steps: int = faithfulness.STEPS, batch_size: int = faithfulness.BATCH, progress: bool = False
                    ) -> list[MethodRow]:
    """Every method, on all patches and on each group of them.

    The rows are chance (with the probabilities of the images as they are, with all pixels deleted and with none
    inserted), the baselines, and each method on the trained network, then on the one with random weights,
    whose maps are judged by where they point alone. A method's first call, on random weights, has it compiled; the
    second, on all images too, is timed.

    Args:
      methods: from variables and images to raw maps and which of them are zero, by name.
      fresh: the network's variables as `init` draws them.
      predict: the trained network's probability of what the methods explain; see `faithfulness`.
      masks: the tumour's, if they are known; measures of it are NaN for a patch that has none.
      groups: more rows for some of the patches, by the group's name, such as `localisation.nest_groups`; a group
        without patches is left out.
      seed: of random maps, of the order of equal values, and of the intervals' resamples.
      steps: of deletion and insertion.
      progress: whether to show a bar of baselines and methods.
    Raises:
      InputError: a method's maps or `predict`'s probabilities are not what they must be, or there are no images.
    """
    count = len(images)

    def faithful(maps: Maps) -> Measures:
        options = {"batch_size": batch_size}
        deletion, insertion = (curve(predict, images, maps, steps=steps, seed=seed, **options) for curve in (
            faithfulness.deletion_curve, faithfulness.insertion_curve))
        drop, increase = faithfulness.confidence_change(predict, images, maps, **options)
        return {"deletion": faithfulness.area_under(deletion), "insertion": faithfulness.area_under(insertion),
                "confidence drop": drop, "confidence increase": increase}

    baselines = {GAUSSIAN: localisation.centre_gaussian(count), "random pixels": localisation.random_order(count, seed),
                 "random cells": localisation.random_order(count, seed, CELL)}
    # Deletion and insertion say little where the network's mind does not change between these.
    ends = {"intact": images, "all deleted": faithfulness.mean_colour(images),
            "none inserted": faithfulness.blurred(images)}
    measured = [_Measured(CHANCE, "none", _chance(count, masks), {
        name: faithfulness.probabilities(predict, made, batch_size) for name, made in ends.items()})]
    bar = tqdm(total=len(baselines) + len(methods), desc="compare", unit=" methods", disable=not progress)
    for name, maps in baselines.items():
        measured.append(_Measured(name, "none", _placed(maps, masks), faithful(maps)))
        bar.update()
    for name, method in methods.items():
        bar.set_postfix_str(name)
        untrained, untrained_zero = _maps(name, method, fresh, images)
        start = time.perf_counter()
        maps, zero = _maps(name, method, trained, images)
        speed = count / (time.perf_counter() - start)
        likeness = {"Spearman after randomisation": spearman(maps, untrained),
                    "SSIM after randomisation": ssim(maps, untrained), "zero maps": zero.astype(np.float64)}
        measured += [_Measured(name, "trained", _placed(maps, masks), faithful(maps) | likeness, speed),
                     _Measured(name, "random", _placed(untrained, masks),
                               {"zero maps": untrained_zero.astype(np.float64)})]
        bar.update()
    bar.close()
    groups = {ALL: np.ones(count, bool), **(groups or {})}
    return [_row(name, rows, entry, measured, seed) for name, rows in groups.items() if rows.any()
            for entry in measured]


def _row(group: str, rows: Bool[np.ndarray, " n"], entry: _Measured, measured: list[_Measured],
         seed: int) -> MethodRow:
    """The means over a group's patches; margins for methods on the trained network."""
    rivals = {} if entry.weights != "trained" else {
        CHANCE: next(other for other in measured if other.method == CHANCE),
        GAUSSIAN: next(other for other in measured if other.method == GAUSSIAN),
        RANDOM_WEIGHTS: next(other for other in measured
                             if (other.method, other.weights) == (entry.method, "random"))}
    differences = {(measure, name): values - rival.placed[measure]
                   for measure, values in entry.placed.items() for name, rival in rivals.items()}
    values = {(measure, ""): values for measure, values in (entry.placed | entry.other).items()} | differences
    means = mean_intervals({key: each[rows] for key, each in values.items()}, seed)
    margins = {measure: {name: means[measure, name] for name in rivals} for measure in entry.placed if rivals}
    figures = {measure: mean for (measure, rival), mean in means.items() if not rival}
    return MethodRow(entry.method, entry.weights, group, int(rows.sum()), figures, margins, entry.maps_per_second)


def _placed(maps: Maps, masks: Masks | None) -> Measures:
    """Where the maps point, patch by patch."""
    centre = {"centre energy": localisation.centre_energy(maps)}
    if masks is None:
        return centre
    ious = localisation.iou(maps, masks)
    return {"pointing game": localisation.pointing_game(maps, masks),
            "tumour energy": localisation.energy_inside(maps, masks),
            "mean IoU": ious.mean(1), "best IoU": localisation.best_iou(ious)} | centre


def _chance(count: int, masks: Masks | None) -> Measures:
    centre = {"centre energy": np.full(count, CENTRE_CHANCE)}
    if masks is None:
        return centre
    area = localisation.area(masks)
    return dict.fromkeys(("pointing game", "tumour energy", "mean IoU", "best IoU"), area) | centre


def _maps(name: str, method: Method, variables: Variables, images: UInt8[np.ndarray, "n 96 96 3"]
          ) -> tuple[Maps, Bool[np.ndarray, " n"]]:
    maps, zero = method(variables, images)
    if maps.shape != images.shape[:3] or zero.shape != images.shape[:1]:
        raise InputError(f"{name}: maps {list(maps.shape)} and flags {list(zero.shape)} for {len(images)} images, "
                         f"expected {list(images.shape[:3])} and {list(images.shape[:1])}")
    return maps, zero
