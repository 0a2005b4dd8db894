"""The process of one subject: python -m pcamjax.benchmark.child <its module> <its options> <folder> <case>.

Options and case are JSON, the folder is that of the material. It imports its own framework alone, does its work once,
says so in a line of JSON, and then, for every number that it reads, does its work so often and answers with the seconds
that each time took.
"""

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from pcamjax.benchmark.material import Case, Material
from pcamjax.benchmark.memory import forget_peak_memory, peak_memory


def main(module: str, options: str, folder: str, case: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print goes to stderr
    material = Material(Path(folder), Case.from_json(case))
    make = getattr(importlib.import_module(module), f"make_{material.case.task}")
    work = make(material, **json.loads(options))
    start = time.perf_counter()
    result = work.run()
    seconds = time.perf_counter() - start + work.facts.get("compile_seconds", 0)
    answer = {"first_seconds": seconds, "result": np.asarray(result, np.float64).tolist(),
              "first_peak_bytes": peak_memory(), **work.facts}
    work.run()
    forget_peak_memory()
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            work.run()
            seconds.append((time.perf_counter() - start) / work.steps)
        answer = {"seconds": seconds, "peak_bytes": work.peak_bytes()}


if __name__ == "__main__":
    main(*sys.argv[1:])
