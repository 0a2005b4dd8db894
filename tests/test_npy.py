"""NumPy's arrays from outside: what NumPy writes is read to the bit, all else refused before memory is taken."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pcamjax.npy import read_header, read_values

NUMBERS = st.sampled_from(["u1", "i1", "<i4", ">i8", "<f2", "<f4", ">f8", "?"])


def written(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_header(text: str, values: bytes = b"") -> bytes:
    header = text.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def read(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    return read_values(file, read_header(file, len(content)))


@given(arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), st.booleans())
def test_what_numpy_writes_is_read_to_the_bit(array, fortran):
    array = np.asfortranarray(array) if fortran and array.ndim else array
    got = read(written(array))
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())


@given(st.lists(st.text(st.characters(exclude_categories=["C"]), max_size=5), max_size=4))
def test_text_is_read(names):
    names = np.array(names, "<U5")
    np.testing.assert_array_equal(read(written(names)), names)


def test_the_trees_of_a_forest_are_read():
    nodes = np.array([(1, -2.5), (3, 0.5)], [("feature", "<i8"), ("threshold", "<f8")])
    np.testing.assert_array_equal(read(written(nodes)), nodes)


@pytest.mark.parametrize("header", [
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), } \n",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), } \n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), } \n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), } \n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), } \n",
    "{'descr': '<Q9', 'fortran_order': False, 'shape': (1,), } \n",
    "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), } \n",
    "{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (1,), } \n",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 32 + "1), } \n",
    "not a dictionary\n", ""])
def test_other_headers_are_refused(header):
    with pytest.raises(ValueError, match="."):
        read(with_header(header, bytes(8)))


@pytest.mark.parametrize("content", [b"", b"\x93NUM", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x03\x00\x00\x00",
                                     b"\x93NUMPY\x02\x00\xff\xff\xff\xff"])
def test_what_is_no_array_is_refused(content):
    with pytest.raises(ValueError, match="no "):
        read(content)


def test_values_that_end_too_early_are_refused():
    content = written(np.arange(8.0))
    file = io.BytesIO(content[:-3])
    with pytest.raises(ValueError, match="ends after 61 of 64 bytes"):
        read_values(file, read_header(file, len(content)))


@pytest.mark.parametrize("code", [1, 27, 0x7F, 0x85, 0xD800, 0x110000])
def test_text_that_is_none_is_refused(code):
    content = written(np.array(["ab"], "<U2"))
    with pytest.raises(ValueError, match="no printable character"):
        read(content[:-4] + struct.pack("<I", code))
