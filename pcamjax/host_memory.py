"""What becomes of freed memory in a process on Linux: XLA asks for all of a step's memory anew at each step."""

import ctypes
import platform

_GLIBC = platform.libc_ver()[0] == "glibc"


def keep_freed_memory() -> None:
    """Makes glibc keep the memory that is freed; to be called before threads are there. Elsewhere it does nothing.

    Above 32 MB glibc would map and unmap it each time, and to touch fresh pages takes up to a third of a short step.
    See docs/performance.md.
    """
    if _GLIBC:
        for parameter, value in ((-1, -1), (-4, 0), (-8, 1)):  # M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX
            ctypes.CDLL(None).mallopt(parameter, value)


def give_back_freed_memory() -> None:
    """Gives freed memory back to the system once, a tenth of a second's work for the next step.

    Kept memory grows: now and then a step does not get the block that the last one freed, for a small allocation sits
    at its edge.
    """
    if _GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
