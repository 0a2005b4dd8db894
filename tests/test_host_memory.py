import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pcamjax import host_memory
from pcamjax.host_memory import TUNABLES, environment

ROOT = Path(__file__).resolve().parents[1]
HUGE_PAGES = host_memory._HUGE_PAGES
SCRIPT = """
import ctypes, sys
from pathlib import Path
from pcamjax.host_memory import give_back_freed_memory, keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmRSS" in line).split()[1]) >> 10
size = int(sys.argv[1]) << 20
keep_freed_memory()
block = libc.malloc(size)
ctypes.memset(block, 1, size)
huge = sum(int(line.split()[1]) for line in Path("/proc/self/smaps").read_text().splitlines()
           if line.startswith("AnonHugePages")) >> 10
full = resident()
libc.free(block)
kept = resident()
give_back_freed_memory()
print(full, kept, resident(), huge)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")


def resident_mebibytes(block: int, variables: dict[str, str]) -> tuple[int, ...]:
    """Of a process: with the block, after it was freed, after memory was given back; and what lies in huge pages."""
    clean = {name: value for name, value in os.environ.items() if name != TUNABLES}
    said = subprocess.run([sys.executable, "-c", SCRIPT, str(block)], capture_output=True, text=True, check=True,
                          cwd=ROOT, env=clean | variables)
    return tuple(map(int, said.stdout.split()))


@pytest.mark.parametrize("tunables", [
    pytest.param(None, id="asked_by_the_process"),
    pytest.param("glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.mmap_max=0",
                 id="asked_as_it_starts")])
def test_freed_memory_is_kept_until_it_is_given_back(tunables):
    full, kept, given_back, _ = resident_mebibytes(200, {TUNABLES: tunables} if tunables else {})
    assert kept > full - 20 and given_back < full - 180


@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="Linux has no huge pages")
def test_with_huge_pages_only_small_blocks_are_kept():
    full, kept, *_ = resident_mebibytes(100, environment())
    assert kept > full - 10
    full, kept, _, huge = resident_mebibytes(200, environment())
    assert kept < full - 180 and huge > 180


@pytest.mark.parametrize("setting", ["always madvise [never]\n", None])
def test_without_huge_pages_all_is_kept(setting, monkeypatch, tmp_path):
    if setting:
        (tmp_path / "enabled").write_text(setting)
    monkeypatch.setattr(host_memory, "_HUGE_PAGES", tmp_path / "enabled")
    assert environment()[TUNABLES].endswith(":glibc.malloc.mmap_max=0")


@pytest.mark.parametrize("given", [None, "glibc.malloc.perturb=0"])
def test_a_job_starts_with_the_tunables_unless_there_are_some(given, tmp_path):
    clean = {name: value for name, value in os.environ.items() if name != TUNABLES}
    job = "import os, sys, experiments\nprint(os.environ['GLIBC_TUNABLES'], *sys.orig_argv[1:], *sys.argv[1:])\n"
    package = tmp_path / "jobs"
    package.mkdir()
    (package / "__init__.py").write_text("import experiments\n")
    (package / "job.py").write_text(job)
    said = subprocess.run([sys.executable, "-u", "-m", "jobs.job", "--of=an argument"], check=True, text=True,
                          capture_output=True, cwd=tmp_path, env=clean | {"PYTHONPATH": str(ROOT)} |
                          ({TUNABLES: given} if given else {}))
    assert said.stdout == f"{given or environment()[TUNABLES]} -u -m jobs.job --of=an argument --of=an argument\n"
