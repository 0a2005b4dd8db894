"""PCam from its public DOI."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pcamjax.data.sources.pcam_hdf5 import PARTS, PUBLISHED_MD5, STEM
from pcamjax.download import download
from pcamjax.errors import InputError

DOI = "https://doi.org/10.5281/zenodo.2546921"
BASE_URL = "https://zenodo.org/records/2546921/files"
LARGEST = 8 << 30  # bytes; the largest file of PCam has 6.4e9


def download_pcam(folder: str | os.PathLike, *, parts: Sequence[str] = PARTS, base_url: str = BASE_URL,
                  md5: Mapping[str, str] = PUBLISHED_MD5) -> Path:
    """Downloads the x, y and meta files of parts into `folder`, 8.0 GB for all three; whole files are kept.

    A file arrives as `.<name>.<md5>.part`, which the next call continues.

    Raises:
      InputError: an unknown part, no network, a file that is not the published one, or a full disk.
    """
    folder = Path(folder)
    if unknown := set(parts) - set(PARTS):
        raise InputError(f"part {min(unknown)!r}: expected some of {', '.join(PARTS)}")
    names = [name for name in md5 if name.removeprefix(STEM).split("_")[0] in parts]
    by_hand = f"download {', '.join(names)} from {DOI} by hand into {folder}"
    for name in names:
        download(f"{base_url}/{name}", folder / name, md5[name], largest=LARGEST, by_hand=by_hand)
    return folder
