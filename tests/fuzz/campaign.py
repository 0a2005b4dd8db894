"""Damaged files by the ten thousand, each read as a job reads it: a valid result or the one line, and nothing else.

    make fuzz                                               # 20,000 files a reader
    PYTHONPATH=.:tests python -m fuzz.campaign --count=500 --readers=run_json,csv_tables --folder=runs/fuzz

A case is a function of (reader, number), so it can be made again: --readers=run_json --only=17. A worker process reads;
one that dies, takes more than a gigabyte above what whole files take, or is silent for two minutes is a finding, and
another goes on after it. What is done lies in <folder>/<reader>.json, and is not done again.
"""

import argparse
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SECONDS = 120  # of silence, after which a case counts as hanging; readers of their own are ended after 30 of computing
MEMORY = 1 << 30  # bytes beyond those after whole files


def damaged(name: str, number: int, files: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """A case: which file, and what it holds."""
    from fuzz.mutations import mutate

    rng = random.Random(f"{name} {number}")
    target = rng.choice(sorted(files))
    forms = files[target]
    others = [form for forms in files.values() for form in forms]
    return target, mutate(rng, target, rng.choice(forms), others)


def work(name: str, numbers: range) -> None:
    """Reads cases and prints a line for each: its number, what came of it, and the largest memory so far in MB."""
    import tiny
    from fuzz.readers import READERS

    tiny.register()
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = reader.make(folder)
        for target, forms in files.items():
            (folder / target).write_bytes(forms[0])
        assert read(reader, folder, next(iter(files))) == "valid", "the whole files are not readable"
        limit = address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        started = time.monotonic()
        for number in numbers:
            target, content = damaged(name, number, files)
            (folder / target).write_bytes(content)
            print(json.dumps([number, "begins", 0]), flush=True)
            outcome = read(reader, folder, target)
            print(json.dumps([number, outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024]), flush=True)
            (folder / target).write_bytes(files[target][0])
        print(json.dumps([-1, "ends", time.monotonic() - started]), flush=True)


def read(reader, folder: Path, target: str) -> str:
    """"valid", "refused", "stopped" for a reader in a process of its own that crashed or met a limit, or a finding."""
    from pcamjax.errors import InputError

    try:
        reader.read(folder, target)
        return "valid"
    except InputError as error:
        text = str(error)
        if "\n" in text or not " ".join(text.split()).isprintable():
            return f"finding: not one printable line: {text[:300]!r}"
        if "Unable to allocate" in text or "MemoryError" in text:
            return f"finding: memory: {text[:300]}"
        return "stopped" if "its reader crashed" in text else "refused"
    except Exception as error:
        import traceback
        where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return f"finding: {type(error).__name__}: {str(error)[:200]} at {' '.join(where[-4:])}"


def address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def campaign(name: str, count: int, folder: Path, deadline: float) -> dict:
    """Reads what is missing of `count` cases, until the deadline; returns and writes what was found so far."""
    file = folder / f"{name}.json"
    state = {"reader": name, "done": 0, "outcomes": {}, "findings": {}, "seconds": 0.0, "peak_mb": 0}
    if file.exists():
        state = json.loads(file.read_text())
    outcomes = Counter(state["outcomes"])
    while state["done"] < count and time.monotonic() < deadline:
        stop = min(count, state["done"] + 4000)
        process = subprocess.Popen([sys.executable, "-m", "fuzz.campaign", "--worker", name, str(state["done"]),
                                    str(stop)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        begun, ended, buffer, started = None, False, b"", time.monotonic()
        while True:
            ready, _, _ = select.select([process.stdout], [], [], SECONDS)
            chunk = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for number, outcome, value in map(json.loads, lines):
                if outcome == "begins":
                    begun = number
                elif outcome == "ends":
                    ended = True
                else:
                    kind = outcome.partition(":")[0]
                    outcomes[kind] += 1
                    if kind == "finding":
                        state["findings"][str(number)] = outcome
                    state["done"], state["peak_mb"] = number + 1, max(state["peak_mb"], value)
        hung = process.poll() is None and not ended and bool(not ready)
        if process.poll() is None and not ended:
            process.kill()
        code = process.wait()
        if not ended:
            if begun is None:
                raise SystemExit(f"{name}: the worker does not start: {process.stderr.read().decode()[-2000:]}")
            number = state["done"]
            state["findings"][str(number)] = "hang" if hung else f"the worker died, code {code}"
            outcomes["finding"] += 1
            state["done"] = number + 1
        process.stdout.close()
        process.stderr.close()
        state["seconds"] = round(state["seconds"] + time.monotonic() - started, 1)
        state["outcomes"] = dict(outcomes)
        file.write_text(json.dumps(state, indent=2) + "\n")
    return state


def main() -> None:
    """Runs the campaign, or one case of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="files a reader")
    parser.add_argument("--readers", default="", help="some of them, by commas; all")
    parser.add_argument("--folder", type=Path, default=Path("runs/fuzz"), help="for what is found")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which it stops, to be gone on with")
    parser.add_argument("--only", type=int, help="read this case alone, in this process")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        name, start, stop = given.worker
        work(name, range(int(start), int(stop)))
        return
    from fuzz.readers import READERS
    names = given.readers.split(",") if given.readers else list(READERS)
    if given.only is not None:
        work(names[0], range(given.only, given.only + 1))
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    deadline, found = time.monotonic() + 60 * given.minutes, 0
    for name in names:
        state = campaign(name, given.count, given.folder, deadline)
        found += len(state["findings"])
        print(f"{name:<17} {state['done']:>6} files, {state['seconds']:>7,.0f} s, {state['peak_mb']:>5} MB: "
              + ", ".join(f"{kind} {number:,}" for kind, number in sorted(state["outcomes"].items())), flush=True)
        for text, number in Counter(text.split(" at ")[-1] for text in state["findings"].values()).most_common(10):
            print(f"    {number} x {text}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
