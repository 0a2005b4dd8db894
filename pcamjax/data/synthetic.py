"""H&E-like patches by stain physics, each with its tumour mask: for demos and tests, never for claims.

Two dyes lie on a slide, haematoxylin in nuclei and eosin in fibres and cytoplasm, and light is dimmed by
both as Beer and Lambert say: I = I0 * 10^-(h * H + e * E). The optical-density vectors H and E are published:
those of Ruifrok and Johnston 2001 ("Quantification of histochemical staining by color deconvolution", Anal
Quant Cytol Histol 23) and the reference of Macenko et al. 2009 ("A method for normalizing histology slides
for quantitative analysis", ISBI). Lengths are in pixels of about 1 um, as in PatchCamelyon.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int8, Shaped, UInt8

from pcamjax.errors import InputError

PARTS = ("train", "valid", "test")
SIZE = 96
CENTRE = slice(32, 64)  # rows and columns that decide the label
# Optical densities in R, G, B of haematoxylin and of eosin; the stain of a slide lies between these two.
RUIFROK = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))
MACENKO = ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))

MARGIN = 12  # tissue drawn around the patch, so that nuclei are cut by its border
FRAME = SIZE + 2 * MARGIN
CLEARANCE = 5  # a nest of a healthy patch stays this far from the centre
_ROWS, _COLUMNS = np.mgrid[:FRAME, :FRAME].astype(np.float32) - MARGIN
_PATCH = (slice(MARGIN, MARGIN + SIZE),) * 2
_SLIDE_STREAM, _PATCH_STREAM = 0, 1

Field = Float32[np.ndarray, "120 120"]


class SyntheticPatches(NamedTuple):
    """Patches with labels, slide ids and tumour masks; label 1 says that the mask meets the centre 32x32."""

    images: UInt8[np.ndarray, "n 96 96 3"]
    labels: Int8[np.ndarray, " n"]
    slides: Shaped[np.ndarray, " n"]
    tumour_masks: Bool[np.ndarray, "n 96 96"]


class _Stain(NamedTuple):
    """A slide's dyes (optical density a unit), the light behind it, the blur and noise of its scanner."""

    densities: Float32[np.ndarray, "2 3"]
    light: Float32[np.ndarray, "3"]
    blur: float
    noise: float


class _Stamps(NamedTuple):
    """Nuclei drawn once: the dye they bring, and the share of what lay there before that they leave."""

    dyes: Float32[np.ndarray, "k 2 s s"]
    clear: Float32[np.ndarray, "k 1 s s"]


def generate(
    count: int, seed: int, *, part: str = "train", start: int = 0, slides: int = 24
) -> SyntheticPatches:
    """Draws patches `start` to `start + count - 1` of a part, about half of them positive.

    Patch i depends on (seed, part, slides, i) alone, so any stretch can be drawn without the rest; parts
    share no slide. Nearly half of the negatives have tumour outside the centre. Where there are nests, they
    cover 5 to 40 % of the patch; in most positives their centroid lies outside the centre square.

    Args:
      count: number of patches, 0 or more.
      seed: 0 or more; same seed, same bytes.
      part: "train", "valid" or "test".
      start: number of the first patch.
      slides: how many slides the part's patches come from; their ids are "synthetic_<part>_<two digits>".

    Raises:
      InputError: a number is out of range or the part is unknown.
    """
    limits = {"count": (count, 0), "seed": (seed, 0), "start": (start, 0), "slides": (slides, 1)}
    for name, (value, least) in limits.items():
        if value < least:
            raise InputError(f"synthetic patches: {name} is {value}, expected {least} or more")
    if part not in PARTS:
        raise InputError(f"synthetic patches: part is {part!r}, expected one of {', '.join(PARTS)}")
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, SIZE, SIZE), bool)
    names = np.array([f"synthetic_{part}_{slide:02d}" for slide in range(slides)])
    of_slide = np.empty(count, np.int64)
    stains = [_stain(_rng(seed, part, _SLIDE_STREAM, slide)) for slide in range(slides)]
    for row in range(count):
        rng = _rng(seed, part, _PATCH_STREAM, start + row)
        of_slide[row] = rng.integers(slides)
        depth = _nests(rng, positive=rng.random() < 0.5)
        images[row] = _photograph(rng, _tissue(rng, depth), stains[of_slide[row]])
        masks[row] = depth[_PATCH] > 0
    labels = masks[:, CENTRE, CENTRE].any((1, 2)).astype(np.int8)
    return SyntheticPatches(images, labels, names[of_slide], masks)


def _rng(seed: int, part: str, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, PARTS.index(part), stream, number])


def _stain(rng: np.random.Generator) -> _Stain:
    mix = rng.uniform()
    densities = (1 - mix) * np.array(RUIFROK) + mix * np.array(MACENKO) + rng.normal(0, 0.03, (2, 3))
    densities *= rng.lognormal(-0.1, 0.2, (2, 1)) / np.linalg.norm(densities, axis=1, keepdims=True)
    light = rng.uniform(222, 250) + rng.normal(0, 3, 3)
    return _Stain(
        densities.astype(np.float32), light.astype(np.float32), rng.uniform(0.06, 0.16), rng.uniform(1.5, 4.0)
    )


def _nests(rng: np.random.Generator, positive: bool) -> Field:
    """Depth in tumour nests, negative outside all of them: drawn again until the rules of `generate` hold."""
    if not positive and rng.random() < 0.54:
        return np.full((FRAME, FRAME), -np.inf, np.float32)
    while True:
        central = [positive] + [False] * rng.integers(0, 2 if positive else 3)
        depth = np.maximum.reduce([_nest(rng, near) for near in central])
        depth += 2.5 * _smooth_noise(rng, 12)
        mask = depth[_PATCH] > 0
        if not 0.06 < mask.mean() < 0.38:
            continue
        if positive and mask[CENTRE, CENTRE].mean() > 0.2:
            return depth
        around = slice(CENTRE.start - CLEARANCE, CENTRE.stop + CLEARANCE)
        if not positive and not mask[around, around].any():
            return depth


def _nest(rng: np.random.Generator, central: bool) -> Field:
    """Depth in one elliptic nest, near the centre square or away from it."""
    angle, turn = rng.uniform(0, 2 * np.pi, 2)
    radius, stretch = rng.uniform(14, 25) if central else rng.uniform(14, 30), rng.uniform(1, 1.35)
    distance = rng.uniform(12, 36) if central else rng.uniform(32, 60)
    y = _ROWS - np.float32(SIZE / 2 + distance * np.sin(angle))
    x = _COLUMNS - np.float32(SIZE / 2 + distance * np.cos(angle))
    along = (x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))) * np.float32(1 / stretch)
    across = (y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))) * np.float32(stretch)
    return np.float32(radius) - np.sqrt(along * along + across * across)


def _tissue(rng: np.random.Generator, depth: Field) -> Float32[np.ndarray, "2 120 120"]:
    """Amounts of haematoxylin and eosin: stroma and lymphocytes around the nests, tumour cells in them."""
    tumour = np.clip(depth + 0.5, 0, 1)
    lymphoid = _smooth_noise(rng, 5) + rng.normal(0, 0.9)
    stroma = np.clip(0.5 - 2 * lymphoid, 0, 1)
    direction = rng.uniform(0, np.pi)
    bend = 0.4 * _smooth_noise(rng, 4)

    # Fibres: stripes across the fibres' direction, bent and broken by noise.
    across = _ROWS * np.float32(np.cos(direction)) - _COLUMNS * np.float32(np.sin(direction))
    fibres = np.sin(across * np.float32(rng.uniform(0.7, 1.1)) + 10 * bend + _smooth_noise(rng, 16))
    fibres *= 0.5 + 0.5 * _smooth_noise(rng, 16)
    grain = _smooth_noise(rng, 48)
    dyes = np.empty((2, FRAME, FRAME), np.float32)
    dyes[0] = 0.06 + 0.02 * grain + 0.04 * lymphoid.clip(0, 1)
    dyes[1] = 0.16 + 0.05 * grain + stroma * (0.20 + 0.14 * fibres)
    # Holes in the tissue, and the cleft by which a nest pulls away from its stroma.
    tissue = 1 - 0.9 * np.clip(4 * (_smooth_noise(rng, 14) - rng.uniform(1.0, 2.4)), 0, 1)
    tissue *= 1 - rng.uniform(0, 0.45) * np.clip(1 - np.abs(depth + 1.5) / 2, 0, 1)
    cytoplasm = np.array([0.13, 0.27], np.float32) * np.float32(rng.uniform(0.8, 1.25))
    dyes *= tissue * (1 - tumour)
    dyes += tumour * (cytoplasm[:, None, None] * (1 + 0.18 * grain))

    y, x = _sites(rng, 9.0)
    turn = (direction + bend[y, x] + rng.normal(0, 0.2, len(y))) / np.pi % 1
    keep = (depth[y, x] < -4) & (stroma[y, x] > 0.6) & (rng.random(len(y)) < 0.35)
    _paint(dyes, _spindles(), turn[keep], y[keep], x[keep])

    y, x = _sites(rng, 6.6)
    crowding = np.where(depth[y, x] > 3, 0.03, (depth[y, x] < -3.5) * np.clip(1 + lymphoid[y, x], 0.06, 0.95))
    keep = rng.random(len(y)) < crowding
    _paint(dyes, _lymphocytes(), rng.random(len(y))[keep], y[keep], x[keep])

    y, x = _sites(rng, rng.uniform(9.8, 11.8))
    keep = (depth[y, x] > 3.5) & (rng.random(len(y)) < 0.93)
    _paint(dyes, _tumour_nuclei(), rng.random(len(y))[keep], y[keep], x[keep])
    return dyes


def _sites(rng: np.random.Generator, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a jittered lattice whose stamps fit into the frame."""
    steps = np.arange(1 + int(FRAME / spacing))
    row, column = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    y, x = spacing * np.stack([row, column + 0.5 * (row % 2)]) + rng.uniform(0, spacing, (2, 1))
    y, x = np.rint(np.stack([y, x]) + rng.uniform(-0.28, 0.28, (2, len(row))) * spacing).astype(np.int64)
    inside = (np.minimum(y, x) >= MARGIN - 2) & (np.maximum(y, x) < FRAME - MARGIN + 2)
    return y[inside], x[inside]


def _paint(dyes: np.ndarray, stamps: _Stamps, turns: np.ndarray, y: np.ndarray, x: np.ndarray) -> None:
    """Lays a nucleus over what is there at each (y, x); turns are shares of half a circle."""
    side = stamps.clear.shape[-1]
    kinds = (turns * len(stamps.clear)).astype(np.int64)
    corners = np.stack([y, x]) - side // 2
    for kind, top, left in zip(kinds.tolist(), *corners.tolist(), strict=True):
        window = dyes[:, top:top + side, left:left + side]
        window *= stamps.clear[kind]
        window += stamps.dyes[kind]


def _photograph(rng: np.random.Generator, dyes: np.ndarray, stain: _Stain) -> UInt8[np.ndarray, "96 96 3"]:
    """Light through the dyes (Beer-Lambert), the blur of the optics, the noise of the sensor."""
    edge = slice(MARGIN - 1, MARGIN + SIZE + 1)
    thickness = np.float32(rng.lognormal(0, 0.10))
    haematoxylin, eosin = (thickness * stain.densities)[:, :, None, None] * dyes[:, None, edge, edge]
    light = stain.light[:, None, None] * np.exp(np.float32(-np.log(10)) * (haematoxylin + eosin))
    sides, middle = np.float32(stain.blur), np.float32(1 - 2 * stain.blur)
    light = sides * (light[:, :-2] + light[:, 2:]) + middle * light[:, 1:-1]
    light = sides * (light[:, :, :-2] + light[:, :, 2:]) + middle * light[:, :, 1:-1]
    light += np.float32(stain.noise) * rng.standard_normal(light.shape, np.float32)
    return np.rint(light.clip(0, 255)).astype(np.uint8).transpose(1, 2, 0)


def _smooth_noise(rng: np.random.Generator, knots: int) -> Field:
    """Noise of about unit variance that varies over FRAME / knots pixels."""
    taps, weights = _spline(knots)
    values = rng.standard_normal((knots, knots), np.float32)
    # Four taps an axis and no matrix product: a BLAS would bring its threads and its own rounding.
    values = sum(weight[:, None] * values[tap] for tap, weight in zip(taps, weights, strict=True))
    return sum(weight * values[:, tap] for tap, weight in zip(taps, weights, strict=True))


@cache
def _spline(knots: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and weights [4, FRAME] of a cubic B-spline that keeps the variance of white noise."""
    first, t = np.divmod(np.linspace(0, knots - 3, FRAME, endpoint=False), 1)
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3])
    weights /= np.sqrt((weights**2).sum(0).mean())
    return first.astype(np.int64) + np.arange(4)[:, None], weights.astype(np.float32)


@cache
def _lymphocytes() -> _Stamps:
    return _stamps(1, 11, radius=(2.7, 3.5), stretch=(1.0, 1.25), lobes=0.05, chromatin=0.95, clumps=0.18,
                   rim=0.1)


@cache
def _tumour_nuclei() -> _Stamps:
    return _stamps(2, 21, radius=(4.3, 6.4), stretch=(1.0, 1.6), lobes=0.14, chromatin=0.30, clumps=0.22,
                   rim=0.35, nucleoli=2)


@cache
def _spindles() -> _Stamps:
    return _stamps(3, 21, radius=(2.6, 3.6), stretch=(3.0, 7.0), lobes=0.03, chromatin=0.75, clumps=0.15,
                   rim=0.1)


def _stamps(seed: int, side: int, *, radius: tuple[float, float], stretch: tuple[float, float], lobes: float,
            chromatin: float, clumps: float, rim: float, nucleoli: int = 0) -> _Stamps:
    """64 nuclei, turned through half a circle: an outline with lobes, clumped chromatin, rim, nucleoli."""
    rng = np.random.default_rng(seed)
    dyes, clear = [], []
    for turn in np.linspace(0, np.pi, 64, endpoint=False):
        y, x = np.mgrid[:side, :side] - side // 2 - rng.uniform(-0.5, 0.5, (2, 1, 1))
        size, long = rng.uniform(*radius), np.sqrt(rng.uniform(*stretch))
        along = (x * np.cos(turn) + y * np.sin(turn)) / long
        across = (y * np.cos(turn) - x * np.sin(turn)) * long
        angle = np.arctan2(across, along)
        waves = [np.cos(k * angle + rng.uniform(0, 2 * np.pi)) * rng.normal() / k for k in (2, 3, 4)]
        depth = size * (1 + lobes * sum(waves)) - np.hypot(along, across)
        haematoxylin = chromatin * rng.uniform(0.85, 1.15) * (1 + clumps * rng.normal(size=(side, side)))
        haematoxylin += rim * np.exp(-((depth - 0.9) ** 2) / 0.9)
        for _ in range(rng.integers(1, nucleoli + 1) if nucleoli else 0):
            row, column = rng.normal(0, 0.28 * size, 2)
            haematoxylin += 0.75 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / rng.uniform(1.2, 2.2))
        cover = np.clip(depth + 0.5, 0, 1)
        dyes.append(cover * np.stack([haematoxylin.clip(0.1), np.full((side, side), 0.1)]))
        clear.append(1 - cover[None])
    return _Stamps(np.asarray(dyes, np.float32), np.asarray(clear, np.float32))
