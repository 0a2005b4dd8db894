import pytest
import tiny


@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    """A small labelled store; the network "tiny" is registered with it."""
    tiny.register()
    return tiny.write_noise(tmp_path_factory.mktemp("data") / "noise")
