"""Files that are either whole or absent: write under a temporary name, then rename."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pcamjax.errors import InputError

LARGEST_JSON = 64 << 20  # bytes; an evaluation of all of PCam has 20e6
DEEPEST_JSON = 32  # lists and objects in one another
MOST_MEMBERS = 10_000  # of an archive; a forest of 1000 trees has 3000
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, which becomes `path` when the block ends without an error.

    Raises:
      InputError: the disk is full or the folder cannot be written; `path` is then as it was before.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); free space or choose another "
                         "folder, what was there before is untouched") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync(path: str | os.PathLike) -> None:
    """Waits until a file, or the names in a folder, are on the disk; what it has no room for is an OSError by then."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; a NaN becomes null, for JSON has none."""
    text = json.dumps(without_nan(value), indent=2, allow_nan=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file of at most 64 MiB.

    Raises:
      InputError: the file is missing or larger, or is not JSON as we write it.
    """
    try:
        require_file(path, LARGEST_JSON)
        return parse_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); restore it or make it again") from None


def parse_json(text: str) -> Any:
    """The value that JSON from outside says.

    Raises:
      ValueError: it is no JSON, is nested deeper than 32 levels, or holds an integer of more than 64 bits or half a
        character of UTF-16.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST_JSON} levels") from None
    level = [value]
    for _ in range(DEEPEST_JSON):
        level = [item for node in level if isinstance(node, dict | list)
                 for item in (node.values() if isinstance(node, dict) else node) if isinstance(item, dict | list)]
    if level:
        raise ValueError(f"nested deeper than {DEEPEST_JSON} levels")
    if _HALF_CHARACTER.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError, which is a ValueError
    return value


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -2**63 <= int(digits) < 2**64:
        raise ValueError(f"the integer {digits[:20]}... has more than 64 bits")
    return int(digits)


def require_file(path: str | os.PathLike, largest: int) -> None:
    """Raises OSError unless this is a regular file (not a pipe, which nobody may ever fill) of at most `largest` bytes.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    if found.st_size > largest:
        raise OSError(f"it has {found.st_size} bytes, expected {largest} at most")


@contextlib.contextmanager
def open_zip(path: str | os.PathLike, largest: int) -> Iterator[zipfile.ZipFile]:
    """Opens an archive from outside; no more than what is announced is ever unpacked, and nothing to a path it names.

    Raises:
      InputError: its members take more than `largest` bytes.
      ValueError: it has more than 10,000 members, two of one name, one longer than it can be, or other than stored
        and deflated ones.
      OSError, RuntimeError, zipfile.BadZipFile: it is missing, no regular file or no archive.
    """
    require_file(path, largest)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if size > largest:
            raise InputError(f"unpacked it takes {size} bytes, expected {largest} at most")
        if len(members) > MOST_MEMBERS or len(set(archive.namelist())) < len(members):
            raise ValueError(f"{len(members)} members, expected {MOST_MEMBERS} at most, each once")
        # What a member is said to take in the file is asked for as one block when it is read, and what it is said to
        # hold decides what its reader may take; deflate packs 1,032 bytes into one at most.
        length = os.path.getsize(path)
        if any(member.compress_size > length or member.file_size > 1032 * (member.compress_size + 1)
               for member in members):
            raise ValueError("a member is said to be longer than it can be")
        # Of the other kinds some ask for gigabytes before they unpack a byte.
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1
               for member in members):
            raise ValueError("a member is encrypted or packed in an unusual way")
        yield archive


def sha256_file(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_space(folder: Path, needed: int) -> None:
    """Raises InputError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(f"{folder}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; free space or "
                         "choose another disk")


def without_nan(value: Any) -> Any:
    """A tree of JSON values with None for every float that is not finite, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
