"""Joint colour histograms of patches: in RGB, in HSV, or over the amounts of their stains.

A pixel's bin hangs on its colour alone, so the bins of all 2^24 colours are looked up in a table that is made once.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Int, UInt8, UInt16

from pcamjax.data.stain import STAINS
from pcamjax.errors import InputError

Bins = tuple[int, int, int]
Channels = tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"], Int[np.ndarray, " k"]]

BATCH = 128  # images whose pixels are held at a time: some 30 MB
LARGEST = 2**16  # bins of one histogram
# The optical densities of haematoxylin, eosin and the rest between which the bins lie. On real PCam patches 98 % of all
# pixels are within them to 0.05; what is outside counts in the outermost bin.
STAIN_RANGES = ((0.0, 1.5), (0.0, 1.0), (0.0, 0.4))


def colour_histograms(images: UInt8[np.ndarray, "m 96 96 3"], indices: Int[np.ndarray, " n"], *, space: str,
                      bins: Sequence[int | float]) -> Float32[np.ndarray, "n d"]:
    """The share of the pixels of each of `images[indices]` that lie in each bin of a colour space.

    rgb     red, green and blue 0..255, each in bins of equal width
    hsv     hue around the circle, saturation 0..1, value 0..255 (Smith 1978, "Color gamut transform pairs")
    stain   optical densities of haematoxylin, eosin and the rest (Ruifrok and Johnston 2001), see STAIN_RANGES

    Args:
      bins: how many along each of the three axes; the last axis runs fastest.
    Returns:
      d = the product of `bins` shares, which sum to 1.
    Raises:
      InputError: there is no such space, or `bins` are not three numbers of 1 to 256 with a product of 65,536 at most.
    """
    if space not in SPACES:
        raise InputError(f"config.features.space = {space!r}: choose one of {', '.join(SPACES)}")
    whole = len(bins) == 3 and all(isinstance(count, int) and 1 <= count <= 256 for count in bins)
    if not whole or math.prod(bins) > LARGEST:
        raise InputError(f"config.features.bins = {tuple(bins)}: expected three whole numbers of 1 to 256 whose "
                         f"product is {LARGEST} at most")
    table, size = _bins_of_colours(space, tuple(bins)), math.prod(bins)
    histograms = np.empty((len(indices), size), np.float32)
    for start in range(0, len(indices), BATCH):
        pixels = images[indices[start:start + BATCH]]
        count = len(pixels)
        red, green, blue = np.moveaxis(pixels.reshape(count, -1, 3), -1, 0).astype(np.uint32, order="C")
        places = table[red << 16 | green << 8 | blue].astype(np.int64) + size * np.arange(count)[:, None]
        counts = np.bincount(places.ravel(), minlength=size * count).reshape(count, size)
        histograms[start:start + count] = counts / places.shape[1]
    return histograms


@functools.lru_cache(maxsize=1)
def _bins_of_colours(space: str, bins: Bins) -> UInt16[np.ndarray, " colours"]:
    """The bin of each colour, which is red * 65536 + green * 256 + blue."""
    table = np.empty((256, 2**16), np.uint16)
    green, blue = np.divmod(np.arange(2**16), 256)
    for red in range(256):  # one red at a time fits into a cache
        first, second, third = SPACES[space](np.stack([np.full_like(green, red), green, blue]), bins)
        table[red] = (first * bins[1] + second) * bins[2] + third
    return table.reshape(-1)


def _rgb(colours: Int[np.ndarray, "3 k"], bins: Bins) -> Channels:
    return tuple(channel * count // 256 for channel, count in zip(colours, bins, strict=True))


def _hsv(colours: Int[np.ndarray, "3 k"], bins: Bins) -> Channels:
    """In whole numbers, so that no rounding moves a colour over the edge of a bin."""
    red, green, blue = colours
    high, low = colours.max(0), colours.min(0)
    chroma = high - low
    some = np.maximum(chroma, 1)  # grey has the hue 0
    # The hue in turns is this over 6 * some.
    hue = np.select([high == red, high == green], [green - blue, 2 * chroma + blue - red], 4 * chroma + red - green)
    return (bins[0] * (hue % (6 * some)) // (6 * some),
            np.minimum(bins[1] * chroma // np.maximum(high, 1), bins[1] - 1), bins[2] * high // 256)


def _stain(colours: Int[np.ndarray, "3 k"], bins: Bins) -> Channels:
    density = -np.log10((np.arange(256) + 1) / 256)  # black has one, too
    amounts = np.linalg.inv(STAINS).T @ density[colours]
    return tuple(np.clip(np.floor((amount - low) / (high - low) * count), 0, count - 1).astype(np.int64)
                 for amount, (low, high), count in zip(amounts, STAIN_RANGES, bins, strict=True))


SPACES: dict[str, Callable[[np.ndarray, Bins], Channels]] = {"rgb": _rgb, "hsv": _hsv, "stain": _stain}
