"""Files from the network: resumed where they were cut, and under their name only once they are the right ones."""

import contextlib
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pooch
from tqdm import tqdm

from pcamjax.errors import InputError
from pcamjax.files import require_space

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte


def download(url: str, path: Path, md5: str | None, *, largest: int, by_hand: str,
             check: Callable[[Path], object] = lambda path: None) -> None:
    """Downloads `url` to `path`, unless the file is there already.

    It arrives as `.<name>.<md5>.part` beside `path`, which the next call continues, and has to pass `check`, which
    raises InputError, before it gets its name. `by_hand` tells in the message how to do without this download.

    Raises:
      InputError: no network, a file that has another MD5, does not pass `check` or is larger than `largest` bytes, or
        a full disk.
    """
    partial = path.with_name(f".{path.name}.{md5}.part" if md5 else f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch = _Resume(partial, largest, check)
        if md5:
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=fetch)
        elif not path.is_file():
            fetch(url, path)
    except _NetworkError as error:
        raise InputError(f"{url}: {error}; run the same command again to go on, or {by_hand}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); free space, then run the same "
                         "command again to go on") from error
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{url}: what came is not the published file, its MD5 is not {md5}; it was removed, run the "
                         f"same command again, use another base_url, or {by_hand}") from None


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

    def __init__(self, partial: Path, largest: int, check: Callable[[Path], object]):
        self.partial, self.largest, self.check = partial, largest, check

    def __call__(self, url: str, output_file: Any, _: Any = None) -> None:
        """Fetches `url` into `output_file`, again and again for as long as each attempt brings new bytes."""
        while True:
            before = self._size()
            try:
                self._fetch(url, before)
                break
            except _NetworkError:
                if self._size() <= before:
                    raise
        try:
            self.check(self.partial)
        except InputError:
            self.partial.unlink()
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
            if end > self.largest:
                raise InputError(f"{url}: {end} bytes announced, more than the {self.largest} expected at most; is "
                                 "this its address?")
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
