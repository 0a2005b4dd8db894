"""Cascading randomisation: a heat map that survives random weights explains nothing.

Adebayo et al. 2018, "Sanity checks for saliency maps" (arXiv 1810.03292), section 3: layers are drawn anew from the
output down, and the maps are compared with those of the trained network. A method that explains what was learnt loses
its maps on the way; one that mostly draws the image's edges keeps them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from pcamjax.errors import InputError
from pcamjax.explain.intervals import Estimate, mean_intervals
from pcamjax.models.graph import Path, layer_graph

Variables = Mapping[str, Any]
Maps = Float[np.ndarray, "n h w"]
Images = UInt8[np.ndarray, "n 96 96 3"]
Method = Callable[[Variables, Images], tuple[Maps, Bool[np.ndarray, " n"]]]
"""From a network's variables and images to raw maps of at least 0, at the images' size, and which of them are zero."""


class Stage(NamedTuple):
    """A network that is random from its output down to the layer `down_to`."""

    down_to: str
    variables: Variables


class Survival(NamedTuple):
    """How like the trained network's the maps are still at a stage, and the share of its maps that are zero."""

    stage: str
    spearman: Estimate
    ssim: Estimate
    zero: Estimate


def cascade(module: nn.Module, trained: Variables, fresh: Variables, *, stages: int = 5, size: int = 96) -> list[Stage]:
    """Networks with ever more of their layers drawn anew: the last layer alone, then as many more at each stage, at
    last all of them.

    Layers go in the order of their calls, each with all that it holds: BatchNorm's statistics become a new network's.
    No function of the variables is compiled anew, for their shapes stay.

    Args:
      trained, fresh: variables of the module; `fresh` as `init` draws them.
      stages: 2 or more; there are fewer where the network has fewer layers.
      size: of the square images that the module takes.
    Raises:
      InputError: fewer than 2 stages, or the variables are not of one network.
    """
    if stages < 2:
        raise InputError(f"{stages} stages: expected 2 or more")
    if jax.tree.map(np.shape, trained) != jax.tree.map(np.shape, fresh):
        raise InputError("the variables drawn anew have not the shapes of the trained ones: draw them for this network")
    # Empty collections are kept, for a function compiled for one tree takes no other.
    flat, new = (traverse_util.flatten_dict(tree, keep_empty_nodes=True) for tree in (trained, fresh))
    layers = [path for path in reversed(layer_graph(module, size)) if any(_within(key, path) for key in flat)]
    made = []
    for count in np.rint(np.linspace(1, len(layers), min(stages, len(layers)))).astype(int):
        drawn = layers[:count]
        mixed = {key: new[key] if any(_within(key, path) for path in drawn) else value for key, value in flat.items()}
        made.append(Stage(drawn[-1][-1], traverse_util.unflatten_dict(mixed)))
    # What no layer of the graph holds is drawn anew at the end too.
    return [*made[:-1], made[-1]._replace(variables=fresh)]


def survival(method: Method, trained: Variables, stages: list[Stage], images: Images, seed: int = 0) -> list[Survival]:
    """The similarity of a method's maps at each stage to those of the trained network: means over patches with 95 %
    intervals.

    The first row is the chance value, the similarity of the trained network's maps to those of other patches: what all
    maps have in common, such as a bright centre, is no sign of surviving.

    Args:
      seed: of the intervals' resamples.
    """
    maps, zero = method(trained, images)
    rows = [_survival("another patch's map", maps, np.roll(maps, 1, 0), np.roll(zero, 1), seed)]
    for stage in stages:
        rows.append(_survival(stage.down_to, maps, *method(stage.variables, images), seed))
    return rows


def spearman(maps: Maps, others: Maps) -> Float[np.ndarray, " n"]:
    """The rank correlation of each pair of maps over their pixels, -1..1; NaN where one of them is constant."""
    ranks, other = (rankdata(array.reshape(len(array), -1), axis=1) for array in (maps, others))
    ranks, other = (array - array.mean(1, keepdims=True) for array in (ranks, other))
    scale = np.sqrt((ranks**2).sum(1) * (other**2).sum(1))
    return (ranks * other).sum(1) / np.where(scale > 0, scale, np.nan)


def ssim(maps: Maps, others: Maps) -> Float[np.ndarray, " n"]:
    """The mean structural similarity of each pair of maps, each divided by its maximum; at most 1.

    NaN where both are zero, for then there is nothing that could be alike.
    Wang et al. 2004 (IEEE Trans Image Process 13): a Gaussian window of 1.5 pixels, K1 = 0.01, K2 = 0.03.
    """
    x, y = (array / np.maximum(array.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
            for array in (maps.astype(np.float64), others.astype(np.float64)))
    mean_x, mean_y, xx, yy, xy = (gaussian_filter(array, (0, 1.5, 1.5), truncate=3.5)
                                  for array in (x, y, x * x, y * y, x * y))
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    local = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
             / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)))
    return np.where((x.max((1, 2)) > 0) | (y.max((1, 2)) > 0), local.mean((1, 2)), np.nan)


def _survival(stage: str, maps: Maps, others: Maps, zero: Bool[np.ndarray, " n"], seed: int) -> Survival:
    measures = {"spearman": spearman(maps, others), "ssim": ssim(maps, others), "zero": zero.astype(np.float64)}
    return Survival(stage, **mean_intervals(measures, seed))


def _within(key: Path, path: Path) -> bool:
    """Whether a variable (collection, then path and name) is one that a layer holds."""
    return key[1:1 + len(path)] == path
