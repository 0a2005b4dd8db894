"""A lock on a folder's work, which the kernel takes back from a process that dies."""

import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pcamjax.errors import InputError


@contextlib.contextmanager
def locked(path: str | os.PathLike, work: str) -> Iterator[None]:
    """Holds the lock file `path`, which is there only meanwhile and says who is at what `work`.

    The folder is made, and taken away again if the block leaves nothing in it. Where the file system has no locks (some
    network mounts) a line of warning says so and the work goes on without.

    Raises:
      InputError: another process holds the lock, which is named, or the file cannot be written.
    """
    path, there = Path(path), Path(path).parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _take(path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} ({work} since "
                   f"{time.strftime('%Y-%m-%d %H:%M:%S')})\n")
        file.flush()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); free space or choose another "
                         "folder") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: whoever waits for this file looks whether it still has its name
            if not there:
                path.parent.rmdir()
        file.close()


def _take(path: Path) -> TextIO:
    """The open lock file, locked."""
    while True:
        file = open(path, "a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = " ".join(file.read(1000).split()) or "another process"
            file.close()
            raise InputError(f"{path.parent}: {holder} is at work there; wait for its end, or choose another "
                             "folder") from None
        except OSError as error:
            print(f"warning: {path.parent}: its file system has no locks ({error.strerror}); make sure that no other "
                  "job works there", file=sys.stderr)
            return file
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the one who held it has removed it just now
