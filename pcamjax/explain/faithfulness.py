"""Whether a network's probability follows its heat maps: what happens as pixels go in their order or by their shares.

`predict` is a function from images of the dtype that is given, RGB 0..255, to the probability of what the maps
explain. It always gets `batch_size` images, the last ones repeated where there are fewer, so that a jitted one is
compiled once.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Num
from scipy.ndimage import gaussian_filter

from pcamjax.errors import InputError

Images = Num[np.ndarray, "n h w 3"]
Maps = Float[np.ndarray, "n h w"]
PerPatch = Float[np.ndarray, " n"]
Curves = Float[np.ndarray, "n points"]
Predict = Callable[[Images], PerPatch]
Replacement = Callable[[Images], Images]

STEPS = 32
BATCH = 32


def mean_colour(images: Images) -> Images:
    """Each image's mean colour, everywhere.

    Black, which is usual, would be a stain darker than any nucleus, and white a hole in the tissue: both are evidence.
    """
    return _like(images, np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape))


def blurred(images: Images, sigma: float = 5.0) -> Images:
    """Each image through a Gaussian of `sigma` pixels.

    The default is that of RISE's code, made for 224 pixels. Of detail with the period at which tumour nuclei stand
    here, about 10 pixels (10 um), it leaves less than 1 %, and of the stain's course over a nest most.
    """
    return _like(images, gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0)))


def probabilities(predict: Predict, images: Images, batch_size: int = BATCH) -> PerPatch:
    """What `predict` says of each image, asked in batches of one size.

    Raises:
      InputError: there are no images, or `predict` does not give a probability for each.
    """
    if not len(images):
        raise InputError("there are no images, expected at least one")
    padding = np.repeat(images[-1:], -len(images) % batch_size, 0)
    padded = np.concatenate([images, padding])
    outputs = np.concatenate([np.asarray(predict(padded[start:start + batch_size]), np.float64)
                              for start in range(0, len(padded), batch_size)])
    if outputs.shape != padded.shape[:1] or not ((outputs >= 0) & (outputs <= 1)).all():
        raise InputError(f"`predict` gave {list(outputs.shape)} from {outputs.min()} to {outputs.max()} for "
                         f"{len(padded)} images, expected a probability for each")
    return outputs[:len(images)]


def deletion_curve(predict: Predict, images: Images, maps: Maps, *, replacement: Replacement = mean_colour,
                   steps: int = STEPS, batch_size: int = BATCH, seed: int = 0) -> Curves:
    """The probabilities as pixels are replaced, the map's greatest values first: [n, steps + 1], the first is intact.

    A lower area is better (Petsiuk et al. 2018, arXiv 1806.07421, section 4.2). Equal values, a map of zeros among
    them, go in random order by `seed`.

    Args:
      maps: at the images' size; only the order of their values counts.
      replacement: what stands where pixels were taken away.
      steps: the number of equal parts in which all pixels go.
    Raises:
      InputError: as `probabilities`, or there is no step.
    """
    return _exchange(predict, images, replacement(images), maps, steps, batch_size, seed)


def insertion_curve(predict: Predict, images: Images, maps: Maps, *, replacement: Replacement = blurred,
                    steps: int = STEPS, batch_size: int = BATCH, seed: int = 0) -> Curves:
    """The probabilities as pixels are put in, the map's greatest values first: [n, steps + 1], the last is intact.

    A higher area is better. Arguments, errors and source are those of `deletion_curve`; what is there before the
    pixels is blurred by default, for on a plain ground their edges would be evidence.
    """
    return _exchange(predict, replacement(images), images, maps, steps, batch_size, seed)


def area_under(curves: Curves) -> PerPatch:
    """The area under each curve by trapezoids, its points evenly over 0..1; in 0..1 as the probabilities are."""
    return np.trapezoid(curves, dx=1 / (curves.shape[1] - 1), axis=1)


def confidence_change(predict: Predict, images: Images, maps: Maps, *, replacement: Replacement = mean_colour,
                      batch_size: int = BATCH) -> tuple[PerPatch, PerPatch]:
    """What is lost or won where only that is seen which a map shows: (drop, increase), whose means have the names
    "average drop" and "increase in confidence" (Chattopadhay et al. 2018, arXiv 1710.11063, section 4.1).

    A pixel is mixed with its replacement by its value in the map, the map's maximum being 1; of a map of zeros the
    replacement remains. The authors' black, `np.zeros_like`, is a stain here: see `mean_colour`.

    Returns:
      the lost share of the probability in 0..1, NaN where that was 0; 1 where it rose and 0 elsewhere.
    Raises:
      InputError: as `probabilities`.
    """
    peaks = maps.max((1, 2), keepdims=True)
    shown = (maps / np.where(peaks > 0, peaks, 1))[..., None]
    before = probabilities(predict, images, batch_size)
    after = probabilities(predict, _like(images, shown * images + (1 - shown) * replacement(images)), batch_size)
    lost = np.maximum(before - after, 0) / np.where(before > 0, before, np.nan)
    return lost, (after > before).astype(np.float64)


def _exchange(predict: Predict, start: Images, end: Images, maps: Maps, steps: int, batch_size: int,
              seed: int) -> Curves:
    """The probabilities on the way from one version of the images to the other, pixels going in the maps' order."""
    if steps < 1:
        raise InputError(f"{steps} steps: expected 1 or more")
    ranks = _ranks(maps, seed)[..., None]
    counts = np.rint(np.linspace(0, maps.shape[1] * maps.shape[2], steps + 1))
    return np.stack([probabilities(predict, np.where(ranks < count, end, start), batch_size) for count in counts], 1)


def _ranks(maps: Maps, seed: int) -> Int[np.ndarray, "n h w"]:
    """0 at each map's greatest value and so on; equal values have their ranks at random."""
    values = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
    order = np.lexsort((np.random.default_rng(seed).random(values.shape), -values))
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(values.shape[1])[None], 1)
    return ranks.reshape(maps.shape)


def _like(images: Images, values: np.ndarray) -> Images:
    """The values in the images' dtype, rounded where that is of whole numbers."""
    return (np.rint(values) if np.issubdtype(images.dtype, np.integer) else values).astype(images.dtype)
