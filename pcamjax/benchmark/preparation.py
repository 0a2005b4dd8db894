"""Draws what all subjects of a comparison share: python -m pcamjax.benchmark.preparation <folder with case.json>.

A process of its own, so that none that measures or waits holds a backend of JAX for it.
"""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from pcamjax.benchmark.material import Material
from pcamjax.models import frozen_layers, model_spec
from pcamjax.models.variables import initial_variables


def prepare(folder: Path) -> None:
    """Writes variables, batch, frozen layers and, where there is Keras, its description of the network.

    The pixels are white noise: what a step costs does not hang on them.
    """
    case = Material(folder).case
    variables = flatten_dict(initial_variables(case.network, case.seed), sep="/")
    np.savez(folder / "variables.npz", **{name: np.asarray(values) for name, values in variables.items()})
    rng = np.random.default_rng(case.seed)
    pixels = rng.integers(0, 256, (case.batch_size, 96, 96, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    np.save(folder / "inputs.npy", np.asarray(model_spec(case.network).preprocess(jnp.asarray(pixels, jnp.float32))))
    np.save(folder / "labels.npy", rng.integers(0, 2, case.batch_size, dtype=np.int32))
    (folder / "frozen.json").write_text(json.dumps(sorted(frozen_layers(case.network, case.frozen))), encoding="utf-8")
    try:
        from pcamjax.benchmark.peers.keras_networks import whole_network
    except ImportError:
        return  # then there are no peers either, as each of them will say
    description = whole_network(case.network).get_config()
    (folder / "network.json").write_text(json.dumps(description), encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
