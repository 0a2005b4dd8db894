"""A subject without a framework: it notes its turns, and dies or errs where its options say so."""

import itertools
import os
import time
from pathlib import Path

from pcamjax.benchmark.subjects import Work


def make_train(material, seconds=0.0, log="", name="", dies_at=0, steps=1):
    count = itertools.count(1)

    def run():
        time.sleep(seconds)
        number = next(count)
        if number == dies_at:
            raise MemoryError("no memory is left")
        if log:
            with Path(log).open("a") as file:
                file.write(f"{name}\n")
        return 0.5

    return Work(run, {"flops": 100.0, "threads": os.environ.get("FAKE_THREADS")}, steps=steps)


def make_infer(material, logits=(0.0, 1.0)):
    return Work(lambda: [logits])
