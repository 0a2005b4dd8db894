"""HDF5 from outside: what lies plainly inside a file is read to the bit, and nothing else is."""

import h5py
import numpy as np
import pytest

from pcamjax import hdf5
from pcamjax.errors import InputError
from pcamjax.hdf5 import Hdf5File
from pcamjax.isolation import UnreadableError


@pytest.fixture
def file(tmp_path):
    """A file with one of everything."""
    (tmp_path / "values.raw").write_bytes(bytes(32))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.arange(4.0)
    with h5py.File(tmp_path / "file.h5", "w") as made:
        made["group/x"] = np.arange(24, dtype=">f4").reshape(4, 3, 2)
        made["scalar"] = np.int8(-3)
        made["text"] = ["a", "b"]
        made.create_dataset("packed", data=np.arange(1000), chunks=(100,), compression="gzip", shuffle=True)
        made.create_dataset("empty", shape=(0, 3), dtype="u1")
        made.create_dataset("unwritten", shape=(1 << 40,), chunks=(1 << 20,), dtype="u1")
        made.create_dataset("elsewhere", shape=(32,), dtype="u1",
                            external=[(str(tmp_path / "values.raw"), 0, 32)])
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (4,))
        made.create_virtual_dataset("virtual", layout)
        made["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")
        made["soft"] = h5py.SoftLink("/group")
        made["group"].attrs.update({"names": ["kernel", "bias"], "names_none": np.zeros(0), "names_number": 3,
                                    "other": "not asked for"})
    return tmp_path / "file.h5"


def test_values_are_read_to_the_bit(file):
    with Hdf5File(file) as opened:
        expected = np.arange(24, dtype=">f4").reshape(4, 3, 2)
        got = opened.read("group/x")
        assert got.dtype == expected.dtype and got.tobytes() == expected.tobytes()
        np.testing.assert_array_equal(opened.read("group/x", 1, 3), expected[1:3])
        np.testing.assert_array_equal(opened.read("packed", 250, 777), np.arange(250, 777))
        assert opened.read("scalar") == np.int8(-3)
        assert opened.read("empty").shape == (0, 3)


def test_nodes_say_what_there_is_before_it_is_read(file):
    with Hdf5File(file, ("names",)) as opened:
        nodes = opened.nodes
        assert nodes["group/x"] == hdf5.Node(True, (4, 3, 2), ">f4", True, (), {})
        assert nodes["packed"].chunks == (100,)
        assert (nodes["text"].is_dataset, nodes["text"].dtype) == (True, "")
        assert nodes["group"].names == {"names": ["kernel", "bias"], "names_none": [], "names_number": None}


def test_links_are_not_followed(file):
    with Hdf5File(file) as opened:
        assert not {"link", "soft", "soft/x"} & set(opened.nodes)


@pytest.mark.parametrize("name", ["elsewhere", "virtual", "unwritten", "text", "group"])
def test_what_does_not_lie_plainly_inside_is_refused(file, name):
    with Hdf5File(file) as opened, pytest.raises(InputError, match=f"^{name} is not stored as plain values"):
        opened.read(name, 0, 4)


@pytest.mark.parametrize("content", [None, b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_what_is_no_hdf5_is_unreadable(tmp_path, content):
    if content is not None:
        (tmp_path / "file.h5").write_bytes(content)
    with pytest.raises(UnreadableError):
        Hdf5File(tmp_path / "file.h5")


def test_too_many_objects_are_refused(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as made:
        for index in range(hdf5.MOST_OBJECTS):
            made.create_group(str(index))
    with pytest.raises(InputError, match="more than 20000 objects"):
        Hdf5File(tmp_path / "file.h5")
