"""The process of one subject: python -m pcamjax.benchmark.child <folder of the material> <subject>.

It imports its own framework alone, does its work once, says so in a line of JSON, and then, for every number that it
reads, does its work so often and answers with the seconds that each time took.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.memory import forget_peak_memory, peak_memory
from pcamjax.benchmark.subjects import SUBJECTS


def main(folder: str, name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print goes to stderr
    subject, material = SUBJECTS[name], Material(Path(folder))
    module = importlib.import_module(subject.module)
    work = getattr(module, f"make_{material.case.task}")(material, **subject.options)
    start = time.perf_counter()
    result = work()
    answer = {"first_seconds": time.perf_counter() - start, "result": np.asarray(result, np.float64).tolist()}
    work()
    forget_peak_memory()
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        answer = {"seconds": seconds, "peak_bytes": peak_memory()}


if __name__ == "__main__":
    main(*sys.argv[1:])
