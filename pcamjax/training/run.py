"""The folder of a run: its configuration, environment and record, and the paths of all it holds."""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import jax
from ml_collections import ConfigDict

from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.files import read_json, write_json
from pcamjax.hosts import is_first
from pcamjax.locks import locked
from pcamjax.ops import compiled

# What may differ when a run goes on: where the data lie, what they are spread over, what is kept in memory and what is
# measured of its cost, not what is computed.
FREE_KEYS = ("carbon", "data.path", "features.run", "input", "model.remat", "parallel")
# What is read of a network's configuration after its training, and of every one.
READ_AFTER = {"eval_batch_size": int, "parallel.devices": int, "parallel.wrapper": str}
READ = {"carbon.country": str, "model.name": str, "seed": int}
# A run's folder before it has its configuration: what a killed start may have left there.
UNCLAIMED = re.compile(r"data\.json|\..*\.(lock|tmp)")
# By work: where its half-written files lie that a killed process may have left.
WRITTEN = {"training": (".",), "results": ("predictions", "evaluation", "explanations")}
PACKAGES = ("pcamjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "scikit-learn",
            "skops", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
# What in a process' environment may change its numbers, by the beginnings of the names.
VARIABLES = ("JAX_", "LIBTPU_", "NVIDIA_TF32_", "PCAMJAX_", "XLA_")
OPTIONS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_default_prng_impl", "jax_threefry_partitionable")


class RunFolder:
    """Paths within a run's folder, and its three small JSON files."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.metrics = self.path / "metrics.jsonl"
        self.classifier = self.path / "classifier.skops"  # of a baseline, in the place of checkpoints
        self.report = self.path / "report.html"

    def predictions(self, split: str) -> Path:
        """Where the predictions of a split lie."""
        return self.path / "predictions" / f"{split}.npz"

    def evaluation(self, split: str) -> Path:
        """Where the metrics of a split lie."""
        return self.path / "evaluation" / f"{split}.json"

    def explanations(self, split: str) -> Path:
        """Where the heat maps of a split lie."""
        return self.path / "explanations" / f"{split}.npz"

    @contextlib.contextmanager
    def lock(self, work: Literal["training", "results"]) -> Iterator[None]:
        """Keeps other processes from the same work in this folder, and clears away what killed ones had half-written.

        A run can be evaluated while it trains, so these are two locks. Of several processes that are one job the first
        holds it for all.

        Raises:
          InputError: another process is at it; it is named.
        """
        if not is_first():
            yield
            return
        with locked(self.path / f".{work}.lock", work):
            for left in (file for folder in WRITTEN[work] for file in (self.path / folder).glob(".*.tmp")):
                if not left.name.startswith(f".{self.report.name}."):  # which both kinds of work write
                    left.unlink()
            yield

    def claim(self, config: ConfigDict, data: dict[str, str]) -> None:
        """Makes the folder this run's: writes `config.json` and `data.json`, or checks that they are the same already.

        Raises:
          InputError: the folder holds a run of another configuration or on other data, or files that are no run's.
        """
        self.require_fits(config, data)
        file = self.path / "config.json"
        if not file.exists():
            write_json(self.path / "data.json", data)
            write_json(file, config.to_dict())
        if not (self.path / "environment.json").exists():  # a run that goes on keeps where it started
            write_json(self.path / "environment.json", environment())

    def require_fits(self, config: ConfigDict, data: dict[str, str]) -> None:
        """Looks whether `claim` would take the folder, and writes nothing.

        Raises:
          InputError: as `claim`.
        """
        file = self.path / "config.json"
        if file.exists():
            require_same(self.config(), config, file)
            own = self.data() or {}
            if other := sorted(key for key in own | data if own.get(key) != data.get(key)):
                raise InputError(f"{self.path / 'data.json'}: this folder holds a run on another "
                                 f"{' and '.join(key.removesuffix('_sha256') for key in other)}; choose another "
                                 "workdir or the same data")
        elif self.path.exists() and (not self.path.is_dir() or any(
                not UNCLAIMED.fullmatch(file.name) for file in self.path.iterdir())):
            raise InputError(f"{self.path}: is not empty and no run's folder (no config.json); choose another workdir")

    def data(self) -> dict[str, str] | None:
        """The `data_identity` that the run was trained on, None for a run that does not say."""
        file = self.path / "data.json"
        return read_json(file) if file.exists() else None

    def config(self) -> ConfigDict:
        """The configuration that the run was started with.

        Raises:
          InputError: the folder holds no run.
        """
        file = self.path / "config.json"
        if not file.exists():
            raise InputError(f"{self.path}: no run (no config.json); train first: python -m experiments.train")
        try:
            # A run from before energy was measured does not name a country.
            config = ConfigDict({"carbon": {"country": ""}, **read_json(file)})
            stored = flatten(config.to_dict())
        except (AttributeError, TypeError, ValueError):
            raise InputError(f"{file}: not a configuration; restore it or train again") from None
        for key, kind in (READ if "features" in config else READ | READ_AFTER).items():
            if type(stored.get(key)) is not kind:
                raise InputError(f"{file}: {key} is {stored.get(key)!r}, expected {kind.__name__}; restore it or train "
                                 "again")
        return config

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes `record.json`: parameters, steps, seconds, speed and how the run ended."""
        write_json(self.path / "record.json", record)

    def record(self) -> dict[str, Any] | None:
        """The record of a finished run, None before its end."""
        file = self.path / "record.json"
        return read_json(file) if file.exists() else None


def data_identity(patches: Patches, split: Split) -> dict[str, str]:
    """Which store, and which of its patches train and validate: two hashes."""
    rows = hashlib.sha256(b"".join(split.indices[part].tobytes() for part in ("train", "valid")
                                   if part in split.indices))
    return {"store_sha256": patches.sha256, "split_sha256": rows.hexdigest()}


def require_same(stored: ConfigDict, asked: ConfigDict, file: Path) -> None:
    """Compares two configurations but for where they run.

    Raises:
      InputError: they differ; the first key that does is named with both values.
    """
    # Through JSON, so that a tuple equals the list that it is stored as.
    left, right = (flatten(json.loads(json.dumps(config.to_dict()))) for config in (stored, asked))
    if missing := sorted(key for key in right.keys() - left.keys() if not key.startswith(FREE_KEYS)):
        raise InputError(f"{file}: does not say {missing[0]}, so an older pcamjax has written it; that run can be "
                         "evaluated, but not gone on with: choose another workdir")
    for key in sorted(left | right):
        if left.get(key) != right.get(key) and not key.startswith(FREE_KEYS):
            raise InputError(f"{file}: this folder holds a run with {key} = {left.get(key)!r}, asked for is "
                             f"{right.get(key)!r}; choose another workdir or the same configuration")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def environment() -> dict[str, Any]:
    """Versions, devices, flags and the commit that a run was made with."""
    devices = jax.devices()
    return {"python": platform.python_version(), "platform": platform.platform(),
            "command": ["python", *sys.orig_argv[1:]],
            "packages": {name: found for name in PACKAGES if (found := _version(name))},
            "devices": {"count": len(devices), "kind": devices[0].device_kind, "platform": devices[0].platform,
                        "runtime": devices[0].client.platform_version, "processes": jax.process_count()},
            "cpu_count": os.cpu_count(), "cpu_kernels": compiled.status(),
            "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
            "options": {name: getattr(jax.config, name) for name in OPTIONS}, "git": _git()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit and cleanliness of the checkout that this file lies in, None for an installed package."""
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=Path(__file__).parent, check=True, capture_output=True,
                              text=True).stdout.strip()
    try:
        tracked = ask("ls-files", Path(__file__).name)
        return {"commit": ask("rev-parse", "HEAD"), "clean": not ask("status", "--porcelain")} if tracked else None
    except (OSError, subprocess.CalledProcessError):
        return None
