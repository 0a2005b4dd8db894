"""What every test runs under: shape-checked calls, four CPU devices, no silent rank promotion, no display."""

import os
from pathlib import Path

# Before anything imports pcamjax: from here on a call of ours checks its arguments and their shapes.
import jaxtyping

jaxtyping.install_import_hook("pcamjax", "beartype.beartype")

import jax  # noqa: E402
import matplotlib  # noqa: E402
import pytest  # noqa: E402

# Not by XLA_FLAGS: a subprocess that a test starts then sees the devices that a user would see.
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile far longer than they compute: the same programs, made in a third of the time.
jax.config.update("jax_disable_most_optimizations", True)
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
