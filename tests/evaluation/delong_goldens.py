"""Writes delong_goldens.json: DeLong's test by MLstatkit, which is no dependency of ours.

    pip install MLstatkit==0.1.91
    python tests/evaluation/delong_goldens.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from MLstatkit import Delong_test

CASES = {  # patches, digits of the scores, how far the second model is from the first
    "few ties": (60, 4, 0.5), "many ties": (200, 1, 0.5), "near each other": (120, 3, 0.05), "apart": (80, 3, 3.0),
}


def case(seed: int, n: int, digits: int, distance: float) -> dict:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(int)
    first = labels + rng.normal(0, 1, n)
    second = first + rng.normal(0, distance, n)
    first, second = (np.round(1 / (1 + np.exp(-margins)), digits) for margins in (first, second))
    z, p, _, _, auc_first, auc_second, how = Delong_test(labels, first, second)
    assert how["method"] == "delong", how
    # Its z is of the second model less the first.
    return {"labels": labels.tolist(), "first": first.tolist(), "second": second.tolist(), "z": -float(z),
            "p": float(p), "auc_first": float(auc_first), "auc_second": float(auc_second)}


if __name__ == "__main__":
    goldens = {name: case(seed, *values) for seed, (name, values) in enumerate(CASES.items())}
    record = {"made_by": f"MLstatkit {version('MLstatkit')}", "cases": goldens}
    Path(__file__).with_suffix(".json").write_text(json.dumps(record) + "\n", encoding="utf-8")
