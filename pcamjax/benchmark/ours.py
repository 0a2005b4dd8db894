"""Our own training step and forward pass as a subject of the benchmark."""

from collections.abc import Callable

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pcamjax.benchmark.material import Material
from pcamjax.data.batches import Batch
from pcamjax.training.losses import make_loss
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.parallel import AXIS, choose_devices, replicate, spread
from pcamjax.training.step import initial_state, make_forward, make_train_step, start_phase


def make_train(material: Material) -> Callable[[], float]:
    """A function that takes one optimizer step and returns the loss when all of it is done."""
    case = material.case
    devices = choose_devices(0, case.batch_size)
    optimizer = make_optimizer({"name": "adam", "schedule": {"name": "constant", "learning_rate": case.learning_rate}},
                               total_steps=1)
    state = replicate(start_phase(initial_state(_variables(material), case.seed), optimizer, material.frozen), devices)
    step = spread(make_train_step(case.network, optimizer, make_loss("categorical_crossentropy", "softmax"), {},
                                  frozen=material.frozen), devices, "shard_map", batch_output=False, donate=True)
    batch = jax.device_put(Batch(material.array("pixels"), material.array("labels")), _along_batch(devices))

    def train() -> float:
        nonlocal state
        state, metrics = jax.block_until_ready(step(state, batch))
        return float(metrics.loss)

    return train


def make_infer(material: Material) -> Callable[[], np.ndarray]:
    """A function that computes the logits [B,2] of the batch."""
    case = material.case
    devices = choose_devices(0, case.batch_size)
    variables = replicate(_variables(material), devices)
    forward = spread(make_forward(case.network), devices, "shard_map", batch_output=True)
    images = jax.device_put(material.array("pixels"), _along_batch(devices))
    return lambda: np.asarray(forward(variables, images))


def _variables(material: Material) -> dict:
    return {"batch_stats": {}, **unflatten_dict(material.variables)}


def _along_batch(devices: list[jax.Device]) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))
