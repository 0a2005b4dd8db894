"""What every test runs under: shape-checked calls, four CPU devices, no silent rank promotion, no display."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Tests compile far longer than they compute: the same programs, made in a third of the time and once a session, by
# subprocesses too.
COMPILED = tempfile.mkdtemp(prefix="pcamjax-compiled-")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)
os.environ |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_COMPILATION_CACHE_DIR": COMPILED,
               "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}

# Before anything imports pcamjax: from here on a call of ours checks its arguments and their shapes.
import jaxtyping  # noqa: E402

jaxtyping.install_import_hook("pcamjax", "beartype.beartype")

import jax  # noqa: E402
import matplotlib  # noqa: E402
import pytest  # noqa: E402

# Not by XLA_FLAGS: a subprocess that a test starts then sees the devices that a user would see.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")


@pytest.fixture(scope="session")
def real_patches() -> Path:
    """The folder with real PCam patches: $PCAMJAX_SHARED, else ../shared/data beside the checkout.

    Without it the test is skipped, or fails where $PCAMJAX_REQUIRE_REAL is 1.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PCAMJAX_SHARED", beside))
    if (folder / "pcam" / "valid.tar").is_file():
        return folder
    reason = f"{folder}: no pcam/valid.tar there; set PCAMJAX_SHARED to the folder with real patches"
    if os.environ.get("PCAMJAX_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def as_users_call():
    """Without the shape checks that tests run under, which would catch the error first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
