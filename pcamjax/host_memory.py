"""How a process on Linux gets its memory: XLA asks for all of a step's memory anew at each step."""

import ctypes
import os
import platform
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
_LIBC, _VERSION = platform.libc_ver()
_GLIBC = _LIBC == "glibc"
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # M_..., from malloc.h
_NO_HUGE_PAGES = 15  # MADV_NOHUGEPAGE


def environment() -> dict[str, str]:
    """The variables with which a process should start; none where there is no glibc, or it is already told something.

    What is freed is kept, for touching fresh pages takes up to a third of a short step. Blocks above 128 MiB are given
    back: in huge pages fresh ones cost little, and a kept one that the next step cannot use stays for nothing. Where
    there are no huge pages they are kept too. See docs/performance.md.
    """
    given = os.environ.get(TUNABLES, "")
    if not _GLIBC or "glibc.malloc." in given:
        return {}
    large = {"hugetlb": 1, "mmap_threshold": 128 << 20} if _has_huge_pages() else {"mmap_max": 0}
    settings = {"arena_max": 1, "trim_threshold": 1 << 40, **large}
    return {TUNABLES: ":".join([given] * bool(given) + [f"glibc.malloc.{name}={value}"
                                                        for name, value in settings.items()])}


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that is freed; to be called before threads are there.

    A process that was started with `environment()` does so already; in another the large blocks are kept too.
    """
    if _GLIBC and "glibc.malloc." not in os.environ.get(TUNABLES, ""):
        for parameter, value in ((_TRIM_THRESHOLD, -1), (_MMAP_MAX, 0), (_ARENA_MAX, 1)):
            ctypes.CDLL(None).mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Gives freed memory back to the system once, a tenth of a second's work for the next step.

    Kept memory grows: now and then a step does not get the block that the last one freed.
    """
    if _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
    _keep_heap_in_small_pages()


def _has_huge_pages() -> bool:
    """Whether Linux has them, of 2 MiB, for those who ask, and glibc can ask."""
    try:
        known = "[never]" not in (_HUGE_PAGES / "enabled").read_text()
        size = int((_HUGE_PAGES / "hpage_pmd_size").read_text())
    except OSError:
        return False
    return known and size <= 2 << 20 and tuple(map(int, _VERSION.split(".")[:2])) >= (2, 35)


def _keep_heap_in_small_pages() -> None:
    """Where glibc asks for huge pages it does so for its heap too, whose holes Linux would fill within minutes; this
    takes the wish back for the heap as it is now."""
    if not _GLIBC or "glibc.malloc.hugetlb=1" not in os.environ.get(TUNABLES, ""):
        return
    maps = Path("/proc/self/maps").read_text().splitlines()
    heap = [int(address, 16) for line in maps if line.endswith("[heap]") for address in line.split()[0].split("-")]
    if heap:
        start = ctypes.c_void_p(min(heap))
        ctypes.CDLL(None).madvise(start, ctypes.c_size_t(max(heap) - min(heap)), _NO_HUGE_PAGES)
