"""A lock on a folder's work, which the kernel takes back from a process that dies."""

import contextlib
import fcntl
import io
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(_take(path))
            stack.callback(_remove, path, folder=not there)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} ({work} since "
                       f"{time.strftime('%Y-%m-%d %H:%M:%S')})\n".encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error}); free space or choose another "
                             "folder") from error
        yield


def _remove(path: Path, folder: bool) -> None:
    """Removes a lock file while it is held, and its folder if that is asked for and empty."""
    with contextlib.suppress(OSError):
        path.unlink()
        if folder:
            path.parent.rmdir()


def _take(path: Path) -> io.FileIO:
    """The open lock file, locked."""
    while True:
        file = open(path, "a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = " ".join(file.read(1000).decode(errors="replace").split()) or "another process"
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
