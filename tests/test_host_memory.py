import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pcamjax import host_memory
from pcamjax.host_memory import TUNABLES, environment

ROOT = Path(__file__).resolve().parents[1]
KEPT = "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=1099511627776:glibc.malloc.mmap_max=0"
SCRIPT = """
import ctypes, sys
from pathlib import Path
from pcamjax.host_memory import give_back_freed_memory, keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def mebibytes(file, name):
    return sum(int(line.split()[1]) for line in Path("/proc/self", file).read_text().splitlines()
               if line.startswith(name)) >> 10
size = int(sys.argv[1]) << 20
keep_freed_memory()
block = libc.malloc(size)
ctypes.memset(block, 1, size)
huge, full = mebibytes("smaps", "AnonHugePages"), mebibytes("status", "VmRSS")
libc.free(block)
kept = mebibytes("status", "VmRSS")
give_back_freed_memory()
flags, inside = [], False
for line in Path("/proc/self/smaps").read_text().splitlines():
    inside = line.endswith("[heap]") if "-" in line.split()[0] else inside
    flags += line.split()[1:] if inside and line.startswith("VmFlags") else []
assert "hg" not in flags, "huge pages are still asked for in the heap"
print(full, kept, mebibytes("status", "VmRSS"), huge)
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")


@pytest.fixture(autouse=True)
def no_tunables(monkeypatch):
    monkeypatch.delenv(TUNABLES, raising=False)
    monkeypatch.delenv("PCAMJAX_STARTED", raising=False)


@pytest.fixture
def huge_pages(monkeypatch, tmp_path):
    """Writes what Linux says of its huge pages."""
    monkeypatch.setattr(host_memory, "_HUGE_PAGES", tmp_path)

    def write(enabled: str, size: int) -> None:
        (tmp_path / "enabled").write_text(f"{enabled}\n")
        (tmp_path / "hpage_pmd_size").write_text(f"{size}\n")
    return write


def resident_mebibytes(block: int, variables: dict[str, str]) -> tuple[int, ...]:
    """Of a process: with the block, after it was freed, after memory was given back; and what lay in huge pages."""
    said = subprocess.run([sys.executable, "-c", SCRIPT, str(block)], capture_output=True, text=True, check=True,
                          cwd=ROOT, env=os.environ | variables)
    return tuple(map(int, said.stdout.split()))


@pytest.mark.parametrize("variables", [
    pytest.param({}, id="asked_by_the_process"),
    pytest.param({TUNABLES: "glibc.pthread.rseq=0"}, id="beside_other_tunables"),
    pytest.param({TUNABLES: KEPT}, id="asked_as_it_starts")])
def test_freed_memory_is_kept_until_it_is_given_back(variables):
    full, kept, given_back, _ = resident_mebibytes(200, variables)
    assert kept > full - 20 and given_back < full - 180


def test_with_huge_pages_large_blocks_are_not_kept():
    if "hugetlb" not in environment().get(TUNABLES, ""):
        pytest.skip("Linux or glibc has no huge pages for those who ask")
    full, kept, given_back, _ = resident_mebibytes(100, environment())
    assert kept > full - 10 and given_back < full - 90
    full, kept, _, huge = resident_mebibytes(200, environment())
    assert kept < full - 180 and huge > 100


def test_huge_pages_are_asked_for_where_linux_has_them(huge_pages, monkeypatch):
    huge_pages("always [madvise] never", 2 << 20)
    monkeypatch.setattr(host_memory, "_VERSION", "2.35")
    assert environment()[TUNABLES].endswith(":glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=134217728")


@pytest.mark.parametrize(("enabled", "size", "version"), [
    ("always madvise [never]", 2 << 20, "2.36"), ("always [madvise] never", 512 << 20, "2.36"),
    ("always [madvise] never", 2 << 20, "2.34"), (None, None, "2.36")])
def test_without_huge_pages_all_is_kept(huge_pages, monkeypatch, enabled, size, version):
    if enabled:
        huge_pages(enabled, size)
    monkeypatch.setattr(host_memory, "_VERSION", version)
    assert environment() == {TUNABLES: KEPT}


def test_what_the_user_tells_glibc_stands(monkeypatch):
    monkeypatch.setenv(TUNABLES, "glibc.pthread.rseq=0")
    assert environment()[TUNABLES].startswith("glibc.pthread.rseq=0:glibc.malloc.arena_max=1:")
    monkeypatch.setenv(TUNABLES, "glibc.malloc.perturb=0")
    assert environment() == {}


@pytest.mark.parametrize("already", [{}, {"PCAMJAX_STARTED": "1"}, {TUNABLES: "glibc.malloc.perturb=0"}])
def test_a_job_starts_once_more_with_the_variable(already, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("import sys\nprint('start', flush=True)\nimport experiments\n")
    (tmp_path / "jobs" / "job.py").write_text(
        f"import os, sys\nprint(os.environ.get('{TUNABLES}'), *sys.orig_argv[1:], *sys.argv[1:])\n")
    said = subprocess.run([sys.executable, "-u", "-m", "jobs.job", "--of=an argument"], check=True, text=True,
                          capture_output=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)} | already)
    starts = ["start"] * (1 if already else 2)
    tunables = already.get(TUNABLES) if already else environment()[TUNABLES]
    assert said.stdout.splitlines() == [
        *starts, f"{tunables} -u -m jobs.job --of=an argument --of=an argument"]
