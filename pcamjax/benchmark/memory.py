"""The resident memory of this process."""

import gc
import resource
import sys
from pathlib import Path

from pcamjax.host_memory import give_back_freed_memory


def forget_peak_memory() -> None:
    """Makes Linux count the peak from here on, so that what compiling took does not hide a step's."""
    gc.collect()
    give_back_freed_memory()  # what is freed already goes back first
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_memory() -> int:
    """The largest resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
