"""Draws what all subjects share for a case: python -m pcamjax.benchmark.preparation <folder> <case>.

A process of its own, so that none that measures or waits holds a backend of JAX for it.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from pcamjax.benchmark.material import Case
from pcamjax.data.sources.synthetic import open_synthetic
from pcamjax.data.store import write_store
from pcamjax.files import write_json
from pcamjax.models import frozen_layers, model_spec
from pcamjax.models.variables import initial_variables

STORE_BATCHES = 64  # of the synthetic store that input is read from


def prepare(folder: Path, case: Case) -> None:
    """Writes batch, variables and frozen layers, or the store.

    The pixels are white noise: what a step costs does not hang on them.
    """
    rng = np.random.default_rng(case.seed)
    pixels = rng.integers(0, 256, (case.batch_size, 96, 96, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "labels.npy", rng.integers(0, 2, case.batch_size, dtype=np.int32))
    if case.task == "input" and not case.data:
        write_store(open_synthetic({"train": STORE_BATCHES * case.batch_size}, case.seed), folder / "store")
    if not case.network:
        return
    np.save(folder / "inputs.npy", np.asarray(model_spec(case.network).preprocess(jnp.asarray(pixels, jnp.float32))))
    variables = flatten_dict(initial_variables(case.network, case.seed), sep="/")
    np.savez(folder / "variables.npz", **{name: np.asarray(values) for name, values in variables.items()})
    write_json(folder / "cam_layer.json", model_spec(case.network).cam_layer)
    write_json(folder / "frozen.json", sorted(frozen_layers(case.network, case.frozen)))


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Case.from_json(sys.argv[2]))
