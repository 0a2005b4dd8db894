"""Published files come once, are checked before they get their name, and leave nothing where they are wrong."""

import hashlib

import pytest
from web_server import serve
from weights.keras_files import backbone, random_layers, renamed, write_legacy

from pcamjax.errors import InputError
from pcamjax.models import MODELS, WeightsFile
from pcamjax.weights import fetch_weights
from pcamjax.weights.published import cache_folder

NAME = "mobilenet_025"
FILE = "mobilenet_2_5_224_tf_no_top.h5"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    layers = random_layers(NAME)
    path = tmp_path_factory.mktemp("weights") / "file.h5"
    return write_legacy(path, renamed(backbone(layers, NAME))).read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PCAMJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(content):
    with serve({f"mobilenet/{FILE}": content}) as running:
        yield running


@pytest.fixture
def hashed(content, monkeypatch):
    """The MD5 of the file, published."""
    file, md5 = MODELS[NAME].weights["imagenet"], hashlib.md5(content).hexdigest()
    monkeypatch.setitem(MODELS[NAME].weights, "imagenet", WeightsFile(file.url, md5, file.licence))
    return md5


def left(cache):
    return sorted(file.name for file in cache.iterdir())


@pytest.mark.parametrize("md5_is_published", [True, False])
def test_a_file_is_fetched_once(server, cache, content, request, md5_is_published):
    if md5_is_published:
        request.getfixturevalue("hashed")
    for _ in range(2):
        assert fetch_weights(NAME, base_url=server.url) == cache / FILE
        assert (cache / FILE).read_bytes() == content and left(cache) == [FILE]
    assert server.state["asked"] == [(f"mobilenet/{FILE}", 0)]


def test_a_download_goes_on_where_it_was_cut(server, cache, content):
    server.state["cuts"] = [100_000, 0]
    with pytest.raises(InputError, match="run the same command again to go on, or download it elsewhere and give that "
                                         "file's path as weights"):
        fetch_weights(NAME, base_url=server.url)
    assert left(cache) == [f".{FILE}.part"]
    fetch_weights(NAME, base_url=server.url)
    assert server.state["sent"] == len(content) and left(cache) == [FILE]


def test_a_file_with_another_hash_is_not_kept(server, cache, hashed):
    server.state["content"][f"mobilenet/{FILE}"] = b"another"
    with pytest.raises(InputError, match=f"{FILE}: what came is not the published file, its MD5 is not {hashed}"):
        fetch_weights(NAME, base_url=server.url)
    assert left(cache) == []


def test_without_a_hash_a_file_that_does_not_fit_is_not_kept(server, cache, content, tmp_path):
    other = write_legacy(tmp_path / "file.h5", renamed(backbone(random_layers(NAME), NAME)[:-1])).read_bytes()
    for wrong, reason in ((content[:50_000], "not readable"), (b"<html>", "not readable"), (other, "ends where")):
        server.state["content"][f"mobilenet/{FILE}"] = wrong
        with pytest.raises(InputError, match=f"{FILE}: what came are not the weights of {NAME}, {reason}") as error:
            fetch_weights(NAME, base_url=server.url)
        assert "\n" not in str(error.value) and ".part" not in str(error.value)
        assert left(cache) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(server, cache, content, hashed):
    cache.mkdir()
    (cache / FILE).write_bytes(content[:-1])
    assert fetch_weights(NAME, base_url=server.url).read_bytes() == content


def test_without_a_network_the_address_and_the_way_round_are_named(server, cache):
    server.server_close()
    url = f"{server.url}/mobilenet/{FILE}"
    with pytest.raises(InputError, match=f"{url}: cannot be reached .*, or download it elsewhere"):
        fetch_weights(NAME, base_url=server.url)
    assert left(cache) == []


def test_a_name_that_is_not_published_lists_those_that_are(cache):
    with pytest.raises(InputError, match="vgg19 has no published weights 'places'; choose imagenet, imagenet_top"):
        fetch_weights("vgg19", "places")
    with pytest.raises(InputError, match="scratch1 has no published weights 'imagenet'; choose none"):
        fetch_weights("scratch1")


def test_the_cache_is_in_the_home_folder_unless_it_is_told(monkeypatch, tmp_path):
    monkeypatch.delenv("PCAMJAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pcamjax" / "weights"
