"""PCam from its public DOI: resumed where it was cut, and under its name only once its hash fits."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pooch
from tqdm import tqdm

from pcamjax.data.sources.pcam_hdf5 import PARTS, PUBLISHED_MD5, STEM
from pcamjax.data.store import require_space
from pcamjax.errors import InputError

DOI = "https://doi.org/10.5281/zenodo.2546921"
BASE_URL = "https://zenodo.org/records/2546921/files"
LARGEST = 8 << 30  # bytes; the largest file of PCam has 6.4e9
CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte


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
    for name in names:
        partial = folder / f".{name}.{md5[name]}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            downloader = _Resume(partial)
            pooch.retrieve(f"{base_url}/{name}", f"md5:{md5[name]}", name, folder, downloader=downloader)
        except _NetworkError as error:
            raise InputError(f"{base_url}/{name}: {error}; run the same command again to go on, or download "
                             f"{', '.join(names)} from {DOI} by hand into {folder}") from None
        except OSError as error:
            raise InputError(f"{folder / name}: cannot be written ({error.strerror or error}); free space, "
                             "then run the same command again to go on") from error
        except InputError:
            raise
        except ValueError:
            raise InputError(f"{base_url}/{name}: what came is not the published file, its MD5 is not "
                             f"{md5[name]}; it was removed, run the same command again or use another "
                             "--base_url") from None
    return folder


class _NetworkError(Exception):
    """The server could not be reached, refused, or hung up; the message says which."""


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Tells errors of the network from those of the disk."""
    try:
        yield
    except HTTPError as error:
        error.close()
        raise _NetworkError(f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _NetworkError(f"cannot be reached ({getattr(error, 'reason', error)})") from error


class _Resume:
    """A downloader for pooch that keeps what came before a cut, and asks the server only for the rest."""

    def __init__(self, partial: Path):
        self.partial = partial

    def __call__(self, url: str, output_file: Any, _: Any) -> None:
        """Fetches `url` into `output_file`, again and again for as long as each attempt brings new bytes."""
        while True:
            before = self._size()
            try:
                self._fetch(url, before)
                break
            except _NetworkError:
                if self._size() <= before:
                    raise
        os.replace(self.partial, output_file)

    def _size(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _fetch(self, url: str, start: int) -> None:
        request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            with _network():
                response = urlopen(request, timeout=TIMEOUT)
        except _NetworkError as error:
            refused = error.__cause__
            if getattr(refused, "code", None) != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            if refused.headers.get("Content-Range") == f"bytes */{start}":
                return  # all of it had come before
            self.partial.unlink()
            raise
        with response:
            if response.status != HTTPStatus.PARTIAL_CONTENT:
                start = 0
            end = start + int(response.headers.get("Content-Length", 0))
            if end > LARGEST:
                raise InputError(f"{url}: {end} bytes announced, more than any file of PCam; is this its "
                                 "address?")
            require_space(self.partial.parent, end - start)
            name = url.rsplit("/", 1)[-1]
            progress = tqdm(total=end, initial=start, unit="B", unit_scale=True, desc=name)
            with open(self.partial, "ab" if start else "wb") as file, progress:
                while file.tell() < end:
                    with _network():
                        chunk = response.read1(CHUNK)
                    if not chunk:
                        raise _NetworkError(f"hung up after {file.tell()} of {end} bytes")
                    file.write(chunk)
                    progress.update(len(chunk))
