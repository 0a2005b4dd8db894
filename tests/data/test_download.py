"""Downloads from a local server: cut, resumed, refused for another hash, one clear line without a network."""

import hashlib
import shutil

import numpy as np
import pytest
from web_server import serve

from pcamjax.data import download
from pcamjax.data.download import download_pcam
from pcamjax.data.sources.pcam_hdf5 import STEM
from pcamjax.errors import InputError

X, META = f"{STEM}valid_x.h5.gz", f"{STEM}valid_meta.csv"
CONTENT = {X: np.random.default_rng(0).bytes(300_000), META: b",wsi\n0,a\n"}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}


@pytest.fixture
def server():
    with serve(CONTENT) as running:
        yield running


def fetch(server, folder):
    return download_pcam(folder, parts=["valid"], base_url=server.url, md5=MD5)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_files_arrive_whole_and_are_not_fetched_again(server, tmp_path):
    for _ in range(2):
        fetch(server, tmp_path / "pcam")
        assert {name: (tmp_path / "pcam" / name).read_bytes() for name in names(tmp_path / "pcam")} == CONTENT
    assert server.state["asked"] == [(X, 0), (META, 0)]


def test_only_the_parts_asked_for_are_fetched(server, tmp_path):
    assert names(download_pcam(tmp_path, parts=["test"], base_url=server.url, md5=MD5)) == []
    with pytest.raises(InputError, match="part 'holdout'"):
        download_pcam(tmp_path, parts=["holdout"], base_url=server.url, md5=MD5)


def test_a_download_cut_in_the_middle_goes_on_where_it_was(server, tmp_path):
    server.state["cuts"] = [100_000, 50_000]
    fetch(server, tmp_path)
    assert (tmp_path / X).read_bytes() == CONTENT[X] and names(tmp_path) == sorted(CONTENT)
    assert server.state["asked"][:3] == [(X, 0), (X, 100_000), (X, 150_000)]
    assert server.state["sent"] == sum(map(len, CONTENT.values())), "no byte was sent twice"


def test_a_download_that_was_killed_goes_on_with_the_next_call(server, tmp_path):
    partial = tmp_path / f".{X}.{MD5[X]}.part"
    server.state["cuts"] = [100_000, 0]  # the second attempt brings nothing, so the call gives up
    with pytest.raises(InputError, match="run the same command again to go on"):
        fetch(server, tmp_path)
    assert names(tmp_path) == [partial.name] and partial.stat().st_size == 100_000
    fetch(server, tmp_path)
    assert names(tmp_path) == sorted(CONTENT) and server.state["sent"] == sum(map(len, CONTENT.values()))


def test_a_part_that_was_whole_is_only_verified(server, tmp_path):
    (tmp_path / f".{X}.{MD5[X]}.part").write_bytes(CONTENT[X])
    fetch(server, tmp_path)
    assert (tmp_path / X).read_bytes() == CONTENT[X] and server.state["sent"] == len(CONTENT[META])


def test_a_server_without_ranges_sends_the_file_from_its_start(server, tmp_path):
    server.state["ranges"] = False
    (tmp_path / f".{X}.{MD5[X]}.part").write_bytes(b"x" * 1000)
    fetch(server, tmp_path)
    assert (tmp_path / X).read_bytes() == CONTENT[X]


@pytest.mark.parametrize("began", [b"", b"rubbish" * 10])
def test_a_file_with_another_hash_leaves_nothing(server, tmp_path, began):
    server.state["content"][X] = CONTENT[X][:-1] + b"?"
    if began:
        (tmp_path / f".{X}.{MD5[X]}.part").write_bytes(began)
    with pytest.raises(InputError, match=f"{X}: what came is not the published file.*{MD5[X]}"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / f".{X}.{MD5[X]}.part").write_bytes(CONTENT[X] + b"more")
    with pytest.raises(InputError, match="again"):
        fetch(server, tmp_path)
    fetch(server, tmp_path)
    assert names(tmp_path) == sorted(CONTENT)


def test_an_existing_file_stays_until_its_successor_is_verified(server, tmp_path):
    (tmp_path / X).write_bytes(b"mine")
    server.state["content"][X] = b"wrong"
    with pytest.raises(InputError, match="not the published file"):
        fetch(server, tmp_path)
    assert (tmp_path / X).read_bytes() == b"mine"


def test_a_file_that_is_too_large_is_not_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 200_000)
    with pytest.raises(InputError, match="300000 bytes announced"):
        fetch(server, tmp_path)
    assert server.state["sent"] == 0 or names(tmp_path) == []


def test_too_little_space_is_noticed_before_the_file_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10**5))
    with pytest.raises(InputError, match="free space or choose another disk"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []


def test_a_missing_file_names_the_answer_of_the_server(server, tmp_path):
    del server.state["content"][X]
    with pytest.raises(InputError, match=f"{X}: the server answers 404 Not Found"):
        fetch(server, tmp_path)


def test_without_a_network_the_files_and_their_place_are_named(server, tmp_path):
    server.server_close()
    by_hand = f"download {X}, {META} from .*zenodo.2546921 by hand into {tmp_path}"
    with pytest.raises(InputError, match=f"cannot be reached .*; .* or {by_hand}"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []
