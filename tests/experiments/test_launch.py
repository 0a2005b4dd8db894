"""What `launch.main` sets before a job starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import jax
from experiments import launch
launch.keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.block_until_ready(jax.jit(lambda x: x * 3 + 1)(2.0))
"""


@pytest.mark.parametrize("named", [False, True])
def test_compiled_programs_are_kept_by_kind_of_processor_or_where_jax_is_told(tmp_path, named):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    if named:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "named")
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, check=True, capture_output=True)
    kept, elsewhere = (list((tmp_path / folder).glob(pattern)) for folder, pattern in (
        ("cache", "pcamjax/programs/*/*-cache"), ("named", "*-cache")))
    assert bool(elsewhere) == named and bool(kept) != named
