"""Which patches train, validate and test: the source's own parts, by slide, at random, or from a file."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pcamjax.data.duplicates import duplicate_groups
from pcamjax.data.store import Patches
from pcamjax.data.tables import read_table
from pcamjax.errors import InputError

PARTS = ("train", "valid", "test")
NAMES = ("official", "by_slide", "random_slides_leak", "file")
UNUSED = "unused"
# The thesis divides the 220,025 labelled patches of Kaggle into 187,000 and 33,025, and keeps a fifth of the
# former for validation; other sizes are divided in the same proportion.
THESIS_LABELLED, THESIS_TEST = 220_025, 33_025
THESIS_TEST_FRACTION, THESIS_VALID_FRACTION = 0.15, 0.20


@dataclass(frozen=True)
class Split:
    """Disjoint ascending row numbers of a store for "train", "valid" and "test", as far as they exist.

    `leaks_slides` tells whether patches of one slide lie in two parts, None where slides are not known;
    `description` says so in words, with what is known of exact duplicates.
    """

    name: str
    indices: dict[str, Int64[np.ndarray, " k"]]
    leaks_slides: bool | None
    description: str

    def part(self, name: str) -> Int64[np.ndarray, " k"]:
        """The rows of one part; InputError, with the parts that there are, if it is not one of them."""
        if name not in self.indices:
            raise InputError(f"split {self.name!r} has no part {name!r}, only {', '.join(self.indices)}; "
                             "choose one of these, or another split (config.data.split.name)")
        return self.indices[name]


def make_split(patches: Patches, name: str, *, seed: int = 0, fold: int = 1, folds: int = 0,
               file: str | os.PathLike | None = None,
               fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)) -> Split:
    """Divides a store, in the same way each time for the same arguments.

    official            the source's own parts, unlabelled patches included
    by_slide            labelled patches, slides kept whole, labels balanced as far as slides allow; about
                        `fractions` (train, valid, test), or, with `folds` = K >= 3, fold number `fold` of K
                        (from 1) as test and the next as valid, then named by_slide_fold<k>of<K>
    random_slides_leak  labelled patches at random in the thesis' proportions; slides lie on both sides
    file                a CSV file with the columns id and split: train, valid, test or unused for every patch

    by_slide and random_slides_leak keep exact duplicates in one part; slides that share one are kept
    together.

    Raises:
      InputError: unknown name or bad argument; slides not known or too few; a part of the source that is none of
        train, valid, test; a split file that does not list each patch once.
    """
    if name == "official":
        return _official(patches)
    if name == "by_slide":
        return _by_slide(patches, seed, fold, folds, fractions)
    if name == "random_slides_leak":
        return _random(patches, seed)
    if name == "file":
        return _from_file(patches, file)
    raise InputError(f"split {name!r} is not known; choose one of {', '.join(NAMES)}")


def _official(patches: Patches) -> Split:
    found = list(dict.fromkeys(patches.parts.tolist()))
    if strange := [part for part in found if part not in PARTS]:
        raise InputError(f"{patches.path}: its source has a part {strange[0]!r}, but split 'official' knows "
                         f"only {', '.join(PARTS)}; choose another split")
    indices = {part: np.flatnonzero(patches.parts == part) for part in PARTS if part in found}
    return _described(patches, "official", indices, "the parts of the source")


def _from_file(patches: Patches, file: str | os.PathLike | None) -> Split:
    if not file:
        raise InputError("split 'file' needs a CSV file with the columns id and split "
                         "(config.data.split.file)")
    file, assigned = Path(file), {}
    for where, row in read_table(file, ("id", "split")):
        if row["split"] not in (*PARTS, UNUSED):
            raise InputError(f"{where}: split {row['split'][:40]!r}, expected {', '.join(PARTS)} or {UNUSED}")
        if row["id"] in assigned:
            raise InputError(f"{where}: id {row['id'][:80]!r} is there twice")
        assigned[row["id"]] = row["split"]
    ids = patches.ids.tolist()
    if missing := [text for text in ids if text not in assigned]:
        raise InputError(f"{file}: {len(missing)} patches of {patches.path} are not in it, the first is "
                         f"{missing[0]!r}; list every patch, with split {UNUSED!r} to leave it out")
    if unknown := assigned.keys() - set(ids):
        raise InputError(f"{file}: {len(unknown)} ids are not in {patches.path}, one is {min(unknown)!r}; is "
                         "this the file of another data set?")
    parts = np.array([assigned[text] for text in ids])
    indices = {part: np.flatnonzero(parts == part) for part in PARTS if (parts == part).any()}
    if not indices:
        raise InputError(f"{file}: every patch is {UNUSED}; assign some to {', '.join(PARTS)}")
    return _described(patches, "file", indices, f"the parts listed in {file.name}")


def _random(patches: Patches, seed: int) -> Split:
    rows = _labelled(patches)
    test = THESIS_TEST if len(rows) == THESIS_LABELLED else round(THESIS_TEST_FRACTION * len(rows))
    valid = round(THESIS_VALID_FRACTION * (len(rows) - test))
    group = duplicate_groups(patches.digests[rows])
    rank = np.random.default_rng(seed).permutation(group.max() + 1)[group]
    order = np.argsort(rank, kind="stable")
    # A group of duplicates goes where its first patch falls: without duplicates the sizes are exact.
    starts = np.searchsorted(rank[order], rank[order], side="left")
    part = np.select([starts < test, starts < test + valid], ["test", "valid"], "train")
    indices = {name: np.sort(rows[order[part == name]]) for name in PARTS}
    description = ("patches drawn at random as in the thesis; SLIDES LEAK: patches of one slide lie on both "
                   "sides, scores are optimistic; no exact duplicate lies in two parts")
    return Split("random_slides_leak", indices, True, description)


def _by_slide(patches: Patches, seed: int, fold: int, folds: int,
              fractions: tuple[float, float, float]) -> Split:
    rows = _labelled(patches)
    if (patches.slides[rows] == "").any():
        raise InputError(f"{patches.path}: slides are not known for all labelled patches, so they cannot be "
                         "split by slide; prepare PCam with its meta files, or choose another split")
    group = _slide_groups(patches, rows)
    labels = patches.labels[rows] == 1
    if folds:
        if folds < 3 or not 1 <= fold <= folds:
            raise InputError(f"fold {fold} of {folds}: expected at least 3 folds and a fold between 1 and "
                             "their number")
        parts = _folds(group, labels, folds, seed, patches)
        name = f"by_slide_fold{fold}of{folds}"
        test, valid = parts == fold - 1, parts == fold % folds
        how = f"fold {fold} of {folds} by slide (test; the next is valid)"
    else:
        if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise InputError(f"fractions {tuple(fractions)}: expected three positive numbers (train, valid, "
                             "test) that sum to 1")
        name, how = "by_slide", "whole slides drawn at random, balanced by label"
        test = _folds(group, labels, round(1 / fractions[2]), seed, patches) == 0
        rest = np.flatnonzero(~test)
        valid = np.zeros_like(test)
        pieces = round((1 - fractions[2]) / fractions[1])
        valid[rest[_folds(group[rest], labels[rest], pieces, seed, patches) == 0]] = True
    indices = {"train": rows[~(test | valid)], "valid": rows[valid], "test": rows[test]}
    return Split(name, indices, False, f"{how}; no slide and no exact duplicate lies in two parts")


def _labelled(patches: Patches) -> Int64[np.ndarray, " k"]:
    rows = np.flatnonzero(patches.labels >= 0)
    if not len(rows):
        raise InputError(f"{patches.path}: no patch has a label, nothing to split; use it for prediction "
                         "only")
    return rows


def _slide_groups(patches: Patches, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
    """Numbers the sets of slides that share no duplicate: components of the graph of slides and images."""
    slide = np.unique(patches.slides[rows], return_inverse=True)[1]
    image = duplicate_groups(patches.digests[rows]) + slide.max() + 1
    nodes = image.max() + 1
    graph = coo_array((np.ones(len(rows)), (slide, image)), shape=(nodes, nodes))
    return connected_components(graph, directed=False)[1][slide].astype(np.int64)


def _folds(group: Int64[np.ndarray, " k"], labels: Bool[np.ndarray, " k"], folds: int, seed: int,
           patches: Patches) -> Int64[np.ndarray, " k"]:
    """The fold of each patch, from 0; groups are whole and labels balanced as far as groups allow."""
    fold = np.full(len(group), -1)
    slides = len(np.unique(group))
    smallest = int(np.bincount(labels, minlength=2).min())
    if max(folds, 2) <= min(slides, smallest):
        from sklearn.model_selection import StratifiedGroupKFold  # seconds to load, for this split alone

        splitter = StratifiedGroupKFold(max(folds, 2), shuffle=True, random_state=seed)
        for k, (_, held_out) in enumerate(splitter.split(group, labels, group)):
            fold[held_out] = k
    if len(np.unique(fold)) != max(folds, 2):
        raise InputError(f"{patches.path}: {slides} independent slides with {smallest} patches of the rarer "
                         f"label are too few for {max(folds, 2)} parts of whole slides; ask for fewer folds "
                         "or larger fractions")
    return fold


def _described(patches: Patches, name: str, indices: dict[str, Int64[np.ndarray, " k"]], what: str) -> Split:
    """A split that was not made here: finds out what its parts share and says it."""
    slides = [set(patches.slides[rows].tolist()) for rows in indices.values()]
    known = not any("" in of_part for of_part in slides)
    shared = sum(map(len, slides)) - len(set().union(*slides))
    images = duplicate_groups(patches.digests)
    repeated = sum(len(np.unique(images[rows])) for rows in indices.values())
    repeated -= len(np.unique(images[np.concatenate(list(indices.values()))]))
    of_slides = "slides are not known, so parts may share them" if not known else (
        f"SLIDES LEAK: {shared} lie in two parts" if shared else "no slide lies in two parts")
    of_images = f"{repeated} images lie" if repeated else "no exact duplicate lies"
    leaks = bool(shared) if known else None
    return Split(name, indices, leaks, f"{what}; {of_slides}; {of_images} in two parts")
