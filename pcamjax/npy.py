"""Arrays in NumPy's format from outside: the header alone says what memory they take, and it is never evaluated."""

import ast
import math
import re
import struct
from io import BufferedIOBase
from typing import NamedTuple

import numpy as np

LONGEST_HEADER = 10_000  # bytes
_FIELD = r"'[<>|=]?[a-zA-Z]\d*'"
# As NumPy writes it, with the fields of a structured dtype that lie in a classifier's trees.
_HEADER = re.compile(rf"\{{'descr': (?P<descr>{_FIELD}|\[\('\w*', {_FIELD}\)(?:, \('\w*', {_FIELD}\))*\]), "
                     r"'fortran_order': (?P<fortran>True|False), "
                     r"'shape': \((?P<shape>(?:\d{1,15},(?: \d{1,15}(?:, \d{1,15})*)?)?)\),? \} *\n")


class NpyHeader(NamedTuple):
    """What a header says, and where the values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int

    @property
    def nbytes(self) -> int:
        """How many bytes of values there must be."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BufferedIOBase, size: int) -> NpyHeader:
    """Reads the header of an array that is alone in `size` bytes.

    Raises:
      ValueError: there is no header as NumPy writes them, it says an array of Python objects or of another size, or
        more than 32 axes.
    """
    start = file.read(8)
    length = {b"\x93NUMPY\x01\x00": "<H", b"\x93NUMPY\x02\x00": "<I"}.get(start)
    if length is None:
        raise ValueError("no array in NumPy's format")
    count = file.read(struct.calcsize(length))
    if len(count) != struct.calcsize(length) or (longest := struct.unpack(length, count)[0]) > LONGEST_HEADER:
        raise ValueError("no header as NumPy writes it")
    text = file.read(longest)
    match = _HEADER.fullmatch(text.decode("latin-1"))
    if match is None or len(text) != longest:
        raise ValueError("no header as NumPy writes it")
    shape = tuple(map(int, re.findall(r"\d+", match["shape"])))
    try:
        dtype = np.dtype(ast.literal_eval(match["descr"]))
    except (TypeError, SyntaxError, OverflowError):
        raise ValueError(f"the dtype {match['descr'][:80]} is none of NumPy's") from None
    if dtype.hasobject or len(shape) > 32:
        raise ValueError(f"Object arrays cannot be loaded, nor {len(shape)} axes")
    header = NpyHeader(shape, dtype, match["fortran"] == "True", len(start) + len(count) + len(text))
    if header.nbytes != size - header.offset:
        raise ValueError(f"it says {list(shape)} of {dtype}, but holds {size - header.offset} bytes")
    return header


def read_values(file: BufferedIOBase, header: NpyHeader) -> np.ndarray:
    """The values that follow a header.

    Raises:
      ValueError: they end too early, or text holds what is no character.
    """
    content = bytearray(header.nbytes)
    done = 0
    with memoryview(content) as view:
        while done < len(content):
            got = file.readinto(view[done:])
            if not got:
                raise ValueError(f"ends after {done} of {len(content)} bytes")
            done += got
    array = np.frombuffer(content, header.dtype) if content else np.zeros(0, header.dtype)
    array = array.reshape(header.shape, order="F" if header.fortran_order else "C")
    require_text(array)
    return array


def require_text(array: np.ndarray) -> None:
    """Raises ValueError if an array of text holds a number that is no character, or a control character."""
    if array.dtype.kind != "U" or not array.size or not array.dtype.itemsize:
        return
    codes = np.ascontiguousarray(array).reshape(-1).view(array.dtype.str[0] + "u4")
    # Zeros fill up what is shorter than the longest.
    wrong = (codes > 0x10FFFF) | ((codes >= 0xD800) & (codes <= 0xDFFF)) | ((codes > 0) & (codes < 32)) | (
        (codes >= 127) & (codes < 160))
    if wrong.any():
        raise ValueError(f"it holds the number {codes[wrong][0]}, which is no printable character")
