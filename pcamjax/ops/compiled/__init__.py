"""Kernels in C++ for CPUs: built once with the machine's own compiler, called by XLA on its own threads.

Where there is no compiler, or $PCAMJAX_KERNELS is "xla", everything is computed by XLA alone.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jaxlib
import numpy as np
from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.files import atomic_file

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++20", "-O3", "-march=native", "-fPIC", "-shared")
TARGETS = (*(f"pcamjax_{kind}{form}" for kind in ("convolve", "winograd", "depthwise")
             for form in ("", "_finished", "_by_input", "_by_kernel")),
           "pcamjax_convolve_packed", "pcamjax_max_pool", "pcamjax_max_pool_by_input", "pcamjax_channel_sums",
           "pcamjax_materialise")
# Widest vector that the kernels are compiled for; most of them want so many channels at least.
LANES = 16
SECONDS = 600  # for the compiler, which needs about 20


def available() -> bool:
    """Whether the kernels are there for the default backend, building them if they have to be."""
    return jax.default_backend() == "cpu" and _load() == ""


def status() -> str:
    """Which kernels a CPU computes with: "compiled", or "xla" and why."""
    if jax.default_backend() != "cpu":
        return f"xla: the backend is {jax.default_backend()}"
    return f"xla: {_load()}" if _load() else "compiled"


def call(target: str, shape: tuple[int, ...], *arrays: Float[Array, "..."], in_place: bool = False, **attributes: int
         ) -> Float[Array, "..."]:
    """The float32 array of `shape` that a kernel of `TARGETS` makes of float32 arrays, `in_place` of the first."""
    # Under shard_map the result varies over the mesh's axes as what all arrays are put together in would.
    result = jax.eval_shape(lambda *arrays: sum(array.sum() for array in arrays), *arrays).update(shape=shape)
    function = jax.ffi.ffi_call(target, result, vmap_method="sequential",
                                input_output_aliases={0: 0} if in_place else None)
    return function(*arrays, **{name: np.int64(value) for name, value in attributes.items()})


def cache_folder() -> Path:
    """Where what was compiled for this machine is kept: $XDG_CACHE_HOME/pcamjax, by default ~/.cache/pcamjax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pcamjax"


def processor() -> str:
    """A name for this kind of processor: what was compiled for one may need instructions that another lacks."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else [platform.processor()]
    named = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return hashlib.sha256("\n".join([platform.machine(), *sorted(named)]).encode()).hexdigest()[:16]


@functools.cache
def _load() -> str:
    """Builds the library unless it is in the cache, and registers its kernels; says why not, "" if it could."""
    wanted = os.environ.get("PCAMJAX_KERNELS", "compiled")
    if wanted not in ("compiled", "xla"):
        raise InputError(f"PCAMJAX_KERNELS={wanted}: expected compiled or xla")
    if wanted == "xla":
        return "PCAMJAX_KERNELS asks for it"
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "there is no C++ compiler (c++, g++, clang++ or $CXX)"
    try:
        library = ctypes.CDLL(_build(compiler))
        for target in TARGETS:
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    except (OSError, AttributeError, InputError, subprocess.SubprocessError) as error:
        return " ".join(str(error).split())
    return ""


def _build(compiler: str) -> str:
    """The path of the library, by what it is made of and made for."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    sources = sorted(SOURCES.glob("*.cc"))
    made_of = [version, *FLAGS, jaxlib.__version__, processor(),
               *(file.read_text(encoding="utf-8") for file in (*sources, *sorted(SOURCES.glob("*.h"))))]
    name = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    path = cache_folder() / "kernels" / f"{name}.so"
    if not path.exists():
        print("compiling pcamjax's CPU kernels, once on this machine ...", file=sys.stderr, flush=True)
        with atomic_file(path) as temporary:
            made = subprocess.run([compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), *map(str, sources), "-o",
                                   str(temporary)], capture_output=True, text=True, timeout=SECONDS)
            if made.returncode:
                raise InputError(f"{compiler} failed: {made.stderr[-500:]}")
    return str(path)
