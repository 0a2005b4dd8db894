"""Kaggle's histopathologic-cancer-detection: train/<id>.tif with train_labels.csv, and test/<id>.tif.

Source: https://www.kaggle.com/competitions/histopathologic-cancer-detection/data
"""

import os
from pathlib import Path

from pcamjax.data.sources.images import ImageFile, ImageFiles
from pcamjax.data.store import Source
from pcamjax.data.tables import read_label, read_table
from pcamjax.errors import InputError


def open_kaggle(folder: str | os.PathLike) -> Source:
    """Opens the labelled patches in the order of train_labels.csv, then the unlabelled ones of test/ by name.

    Parts are "train" and "test" (either may be absent), ids the file names without .tif, slides not known.
    Files in train/ that the table does not list are left out.

    Raises:
      InputError: neither part is there, the table names a file that is not in train/, or has a bad line.
    """
    folder = Path(folder)
    table = folder / "train_labels.csv"
    files = _train(folder / "train", table) if table.exists() or (folder / "train").exists() else []
    test = folder / "test"
    for name in sorted(_names(test)):
        files.append(ImageFile(test / name, -1, name.removesuffix(".tif"), "", "test"))
    if not files:
        raise InputError(f"{folder}: neither train_labels.csv with train/*.tif nor test/*.tif; expected the "
                         "unpacked download of Kaggle's histopathologic-cancer-detection")
    return ImageFiles("kaggle", files)


def _train(folder: Path, table: Path) -> list[ImageFile]:
    present, files = _names(folder), []
    for where, row in read_table(table, ("id", "label")):
        # Names are looked up among those in the folder, so no id can lead out of it.
        if (name := f"{row['id']}.tif") not in present:
            raise InputError(f"{where}: id {row['id'][:80]!r}, but there is no such .tif file in {folder}")
        files.append(ImageFile(folder / name, read_label(row["label"], where), row["id"], "", "train"))
    return files


def _names(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if name.endswith(".tif")} if folder.is_dir() else set()
