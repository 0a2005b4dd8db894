"""Trains the tiny network in a process of its own, so that a test can kill it: run_tiny.py STORE WORKDIR."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import tiny  # noqa: E402

from pcamjax.data.store import Patches  # noqa: E402
from pcamjax.training.loop import fit  # noqa: E402
from pcamjax.training.run import RunFolder  # noqa: E402

if __name__ == "__main__":
    tiny.register()
    patches = Patches.open(sys.argv[1])
    fit(tiny.config(patches.path), patches, tiny.split(patches), RunFolder(sys.argv[2]))
