"""A store of patches -> `index.html`: classes, slides, duplicates, patches, and what augmentation does."""

import functools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pcamjax.data.augment import augment
from pcamjax.data.duplicates import find_duplicates
from pcamjax.data.store import Patches
from pcamjax.report import figures
from pcamjax.report.html import embed, write_page

_SEED = 0
_SHOWN, _AUGMENTED, _DRAWS = 16, 4, 7
_AUGMENTATIONS = {
    "Rotation ±90°, zoom ±20 %, both flips, shift up to 4 pixels, mirrored borders":
        {"flips": True, "rotation": 90.0, "zoom": 0.2, "shift": 4.0},
    "The eight symmetries of the square, which interpolate nothing": {"symmetries": True},
}


def write_data_page(patches: Patches, folder: str | os.PathLike) -> Path:
    """Writes `index.html` and its figures into `folder`, from every label but only the images that it shows.

    Raises:
      InputError: the folder cannot be written.
    """
    folder = Path(folder)
    rng = np.random.default_rng(_SEED)
    names = dict.fromkeys(patches.parts.tolist())
    parts = {name: np.flatnonzero(patches.parts == name) for name in names}
    counts = {name: tuple(int(np.sum(patches.labels[rows] == label)) for label in figures.CLASSES)
              for name, rows in parts.items()}
    slides = {name: set(patches.slides[rows].tolist()) - {""} for name, rows in parts.items()}
    homes = Counter(slide for of_part in slides.values() for slide in of_part)
    shared = sum(count > 1 for count in homes.values())
    duplicates = find_duplicates(patches)
    grids = []
    for name, rows in parts.items():
        shown = _choose(patches.labels, rows, _SHOWN, rng)
        figure = figures.patch_grid(patches.images[shown], patches.labels[shown])
        grids.append({"name": name, "picture": embed(figure, folder / "figures" / f"patches_{name}.png",
                                                     f"{len(shown)} patches of {name} with labels")})
    return write_page(
        folder / "index.html", "data_page.html",
        source=patches.manifest["source"],
        count=f"{len(patches):,}",
        shared_slides=shared,
        proportions=embed(figures.class_proportions(counts), folder / "figures" / "class_proportions.png",
                          "shares of the classes in each part; the table has the same figures"),
        parts=[{"name": name, "figures": _row(counts[name], slides[name])} for name in parts],
        unknown_slides=f"{np.sum(patches.slides == ''):,}",
        duplicates=duplicates.summary(),
        examples_title="Same pixels, both labels" if duplicates.contradictory_groups else "Examples",
        examples=duplicates.examples,
        grids=grids,
        seed=_SEED,
        augmentations=_augmentations(patches, rng, folder),
        store=[("path", patches.path), ("SHA-256 of the manifest", patches.sha256)],
    )


def _row(counts: tuple[int, int, int], slides: set[str]) -> list[str]:
    healthy, metastasis, unlabelled = counts
    labelled = healthy + metastasis
    return [f"{sum(counts):,}", f"{healthy:,}", f"{metastasis:,}", f"{unlabelled:,}",
            f"{100 * metastasis / labelled:.2f}" if labelled else "–",
            f"{len(slides):,}" if slides else "not known"]


def _choose(labels: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` of the rows, the classes in turn for as long as there are any."""
    shuffled = rng.permutation(rows)
    turn = np.empty(len(rows), int)
    for label in figures.CLASSES:
        of_label = labels[shuffled] == label
        turn[of_label] = np.arange(of_label.sum())
    return shuffled[np.argsort(turn, kind="stable")[:count]]


def _augmentations(patches: Patches, rng: np.random.Generator, folder: Path) -> list[dict[str, Any]]:
    chosen = _choose(patches.labels, np.arange(len(patches)), _AUGMENTED, rng)
    originals = patches.images[chosen]
    grids = []
    for number, (name, config) in enumerate(_AUGMENTATIONS.items(), start=1):
        keys = jax.random.split(jax.random.key(_SEED), len(chosen) * _DRAWS)
        draw = jax.jit(functools.partial(augment, config=config))
        seen = np.asarray(draw(np.repeat(originals, _DRAWS, axis=0), keys))
        seen = np.round(seen).astype(np.uint8).reshape(len(chosen), _DRAWS, *originals.shape[1:])
        file = folder / "figures" / f"augmentation_{number}.png"
        figure = figures.augmentation_grid(originals, seen)
        grids.append({"name": name, "picture": embed(figure, file, f"patches as training sees them: {name}")})
    return grids
