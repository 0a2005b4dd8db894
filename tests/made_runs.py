"""Run folders out of nothing, as trainings, baselines and evaluations leave them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from made_predictions import META, predictions

from pcamjax.evaluation.assessment import assess
from pcamjax.evaluation.metrics import evaluation_record
from pcamjax.files import write_json
from pcamjax.inference.predictions import Predictions

SAMPLES = 50  # resamples of the bootstrap
COST = {"train_ms_per_image": 12.5, "parameters": 4_804_290, "bytes": 19_000_000, "flops_per_image": 2.0e8,
        "energy_kwh": 0.5, "co2_kg": 0.125, "method": "codecarbon 3", "region": "ESP", "device": "2 CPU cores"}


def scored(seed: int, error: float, n: int = 60, **meta: Any) -> Predictions:
    """Half of the patches metastasis; the greater the error, the worse the scores."""
    labels = np.arange(n) % 2
    margins = 2.0 * (2 * labels - 1) + np.random.default_rng(seed).normal(0, error, n)
    return predictions(labels, margins=margins, role="test", **META | meta)


def write_run(folder: Path, made: Predictions, config: dict[str, Any], record: dict[str, Any] | None = None, *,
              cost: dict[str, Any] | None = None, test_ms: float | None = None) -> Path:
    """A folder with configuration, record, predictions and evaluation of the part "test"."""
    made = dataclasses.replace(made, meta=made.meta | {"run": folder.name})
    write_json(folder / "config.json", {"data": {"path": "", "split": {"name": "official", "seed": 0}}} | config)
    write_json(folder / "record.json", (record or {}) | ({"cost": cost} if cost else {}))
    made.save(folder / "predictions" / "test.npz")
    evaluation = evaluation_record(made) | {"assessment": assess(made, samples=SAMPLES)}
    if test_ms is not None:
        evaluation["cost"] = {"test_ms_per_image": test_ms, "images": len(made)}
    write_json(folder / "evaluation" / "test.json", evaluation)
    return folder


def write_network(folder: Path, name: str, made: Predictions, *, seed: int = 0, fine_tuned: bool = True,
                  **cost: Any) -> Path:
    """A network's folder, with two epochs of learning."""
    config = {"model": {"name": name, "frozen": "conv_pw_3_relu"}, "optimizer": {"name": "adam"}, "seed": seed}
    record = {"model": name, "parameters": {"total": 4_804_290, "trainable": 4_513_282}, "train_seconds": 5400.0,
              "weights": {"file": "x.h5"} if fine_tuned else None}
    write_run(folder, made, config, record, **cost)
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": 0.7, "valid_loss": 0.6}\n'
                                          '{"epoch": 2, "train_loss": 0.5, "valid_loss": 0.4}\n')
    return folder


def write_baseline(folder: Path, classifier: str, made: Predictions, network: str | None = None, **cost: Any) -> Path:
    """A classical model's folder: on colours, or on the features of a network."""
    kind = f"features of {network} (last, step 7)" if network else "rgb histograms (8x8x8 bins)"
    made = dataclasses.replace(made, meta=made.meta | {"model": f"{classifier} on {kind}"})
    config = {"model": {"name": classifier}, "features": {"name": "network" if network else "histogram"}, "seed": 0}
    return write_run(folder, made, config, {"model": made.meta["model"]}, **cost)
