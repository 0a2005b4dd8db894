"""Images in a folder, listed in a CSV file with the columns file, label and, if known, slide, split, id."""

import os
from pathlib import Path, PurePath

from pcamjax.data.sources.images import ImageFile, ImageFiles
from pcamjax.data.store import Source
from pcamjax.data.tables import read_label, read_table
from pcamjax.errors import InputError

PARTS = ("train", "valid", "test")


def open_folder(folder: str | os.PathLike, table: str | os.PathLike | None = None) -> Source:
    """Opens the images that `table` (default: <folder>/labels.csv) lists, in its order.

    `file` is relative to `folder`; an empty `label` means unlabelled; `slide` and `split` (of train, valid,
    test) may be empty or missing, and `id` defaults to `file`. Without a split, labelled patches are the part
    "train" and unlabelled ones "test".

    Raises:
      InputError: the table is missing or has a bad line, or names a file that is missing or outside `folder`.
    """
    folder = Path(folder)
    files = []
    for where, row in read_table(Path(table) if table else folder / "labels.csv", ("file", "label")):
        name = PurePath(row["file"])
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{where}: file {row['file'][:80]!r} leads out of {folder}; use relative names")
        if not os.path.isfile(folder / name):  # also where the system takes no such name
            raise InputError(f"{where}: there is no file {row['file'][:80]!r} in {folder}")
        label = read_label(row["label"], where) if row["label"] else -1
        part = row.get("split") or ("train" if label >= 0 else "test")
        if part not in PARTS:
            raise InputError(f"{where}: split {part[:40]!r}, expected {', '.join(PARTS)} or nothing")
        number = row.get("id") or row["file"]
        files.append(ImageFile(folder / name, label, number, row.get("slide", ""), part))
    return ImageFiles("folder", files)
