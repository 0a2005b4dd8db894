"""Files are whole or as they were before, and archives from outside take no more than they are said to."""

import json
import zipfile

import pytest

from pcamjax.errors import InputError
from pcamjax.files import atomic_file, open_zip, read_json, sha256_file, write_json


def test_a_file_is_there_only_once_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.parent == path.parent
        temporary.write_text("whole")
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("error", "raised", "said"), [
    (OSError(28, "No space left on device"), InputError, "file.txt: cannot be written .No space left on device.; free"),
    (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
])
def test_what_breaks_off_leaves_the_file_of_before(tmp_path, error, raised, said):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(raised, match=said), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/below.txt: cannot be written"), atomic_file(tmp_path / "file/below.txt"):
        pass


def test_json_comes_back_with_null_for_what_it_cannot_hold(tmp_path):
    write_json(tmp_path / "a.json", {"nan": float("nan"), "list": [1, float("inf"), {"x": (-float("inf"), 0.5)}]})
    assert read_json(tmp_path / "a.json") == {"nan": None, "list": [1, None, {"x": [None, 0.5]}]}
    assert json.loads((tmp_path / "a.json").read_text()) and (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe", b""])
def test_json_that_is_cut_or_none_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match="a.json: not readable as JSON .*; restore it or make it again"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="b.json: no such file"):
        read_json(tmp_path / "b.json")


def test_the_hash_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("field", [20, 24])  # bytes in the file, and unpacked
def test_a_member_that_is_said_to_be_longer_than_it_can_be(field, tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1000))
    with open_zip(path, 1000) as archive:
        assert archive.read("a") == bytes(1000)
        sizes = {20: archive.getinfo("a").compress_size, 24: 1000}
    whole = path.read_bytes()
    directory = whole.rindex(b"PK\x01\x02") + field
    assert whole[directory:directory + 4] == sizes[field].to_bytes(4, "little")
    path.write_bytes(whole[:directory] + (4 * 10**9).to_bytes(4, "little") + whole[directory + 4:])
    with pytest.raises(ValueError, match="a member is said to be longer than it can be"), open_zip(path, 4 * 10**9):
        pass
