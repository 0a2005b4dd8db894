"""How a process on Linux gets its memory: XLA asks for all of a step's memory anew at each step."""

import ctypes
import os
import platform
from pathlib import Path

TUNABLES = "GLIBC_TUNABLES"
_GLIBC = platform.libc_ver()[0] == "glibc"
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment() -> dict[str, str]:
    """The variables with which a process should start; none where there is no glibc.

    What is freed is kept, for touching fresh pages takes up to a third of a short step. Blocks above 128 MiB are the
    exception: in huge pages they come anew at little cost, and one that is not at hand again when the next step asks
    for it would stay for nothing. Where there are no huge pages, they are kept as well. See docs/performance.md.
    """
    if not _GLIBC:
        return {}
    large = {"hugetlb": 1, "mmap_threshold": 128 << 20} if _has_huge_pages() else {"mmap_max": 0}
    settings = {"arena_max": 1, "trim_threshold": 1 << 40, **large}
    return {TUNABLES: ":".join(f"glibc.malloc.{name}={value}" for name, value in settings.items())}


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that is freed; to be called before threads are there.

    For a program that cannot be started with `environment()`; it does nothing where `TUNABLES` is set or glibc is not
    there.
    """
    if _GLIBC and TUNABLES not in os.environ:
        for parameter, value in ((-1, -1), (-4, 0), (-8, 1)):  # M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX
            ctypes.CDLL(None).mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Gives freed memory back to the system once, a tenth of a second's work for the next step.

    Kept memory grows: now and then a step does not get the block that the last one freed.
    """
    if _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)


def _has_huge_pages() -> bool:
    """Whether Linux has them for those who ask, and glibc can ask (since 2.35)."""
    version = ctypes.CDLL(None).gnu_get_libc_version
    version.restype = ctypes.c_char_p
    major, minor = version().decode().split(".")[:2]
    return (int(major), int(minor)) >= (2, 35) and _HUGE_PAGES.exists() and "[never]" not in _HUGE_PAGES.read_text()
