import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import ctypes
from pathlib import Path
from pcamjax.host_memory import give_back_freed_memory, keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmRSS" in line).split()[1]) >> 10
keep_freed_memory()
block = libc.malloc(200 << 20)
ctypes.memset(block, 1, 200 << 20)
full = resident()
libc.free(block)
kept = resident()
give_back_freed_memory()
print(full, kept, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")
def test_freed_memory_is_kept_until_it_is_given_back():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
                          cwd=ROOT)
    full, kept, given_back = map(int, said.stdout.split())
    assert kept > full - 20 and given_back < full - 180
