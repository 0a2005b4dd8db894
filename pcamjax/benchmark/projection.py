"""How long PCam would take on H100s and how much memory: arithmetic on what is counted of a training step's program.

Nothing is measured on a GPU: the peaks are the maker's, and what part of them is reached is assumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from pcamjax.data.batches import Batch
from pcamjax.data.store import IMAGE_SHAPE
from pcamjax.models import frozen_layers, model_spec
from pcamjax.models.summary import summarise
from pcamjax.models.variables import split_parameters, variable_shapes
from pcamjax.ops.flops import plain_flops
from pcamjax.training.losses import make_loss
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.parallel import choose_devices, spread
from pcamjax.training.step import initial_state, make_forward, make_train_step, start_phase

TRAIN, VALID = 262_144, 32_768
STORE_BYTES = (TRAIN + VALID) * math.prod(IMAGE_SHAPE)
# Published for an H100 SXM: dense FLOP/s, bytes/s and bytes of its memory.
PEAK = {"bfloat16": 989e12, "TF32": 494e12, "float32": 67e12}
BANDWIDTH, MEMORY = 3.35e12, 80e9
# Assumed: what part of these is reached; bytes/s each way between GPUs (400 Gb/s a GPU between hosts); seconds of a
# small all-reduce.
REACHED, REACHED_BANDWIDTH, USABLE_MEMORY = 0.4, 0.7, 0.9
LINK = {"in a host": 450e9, "between hosts": 50e9}
LATENCY = {"in a host": 20e-6, "between hosts": 40e-6}
GPUS_A_HOST = 8
UPDATE_BYTES = 28  # Adam reads gradient, parameter and two moments of a trained parameter and writes three of them


@dataclass(frozen=True)
class Counted:
    """What XLA counts of one training step of so many images on one device, in float32.

    Attributes:
      forward_flops: of one image, of the plain program, as `flops` of the whole step.
      bytes: what the compiled program of this machine reads and writes.
      temporary: what it holds beside its arguments.
      state: bytes of parameters, statistics and Adam's moments.
      trained: how many parameters are.
      moments: how many BatchNorm layers average their moments over the devices.
    """

    network: str
    batch_size: int
    forward_flops: float
    flops: float
    bytes: float
    temporary: int
    state: int
    trained: int
    moments: int


def count(network: str, batch_size: int) -> Counted:
    """Compiles a step of a network with the thesis' layers frozen, Adam and no augmentation, and runs nothing."""
    frozen, spec = frozen_layers(network, "thesis"), model_spec(network)
    optimizer = make_optimizer({"name": "adam", "schedule": {"name": "constant", "learning_rate": 1e-3}}, 1)
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variable_shapes(network))
    state = start_phase(initial_state({"batch_stats": {}, **variables}, 0), optimizer, frozen)
    batch = Batch(np.zeros((batch_size, *IMAGE_SHAPE), np.uint8), np.zeros(batch_size, np.int32))
    step = make_train_step(network, optimizer, make_loss("categorical_crossentropy", "softmax"), {}, frozen=frozen)
    step = jax.jit(spread(step, choose_devices(1, batch_size), "shard_map", batch_output=False), donate_argnums=0)
    compiled = step.lower(state, batch).compile()
    forward = jax.jit(make_forward(network))
    return Counted(network, batch_size, plain_flops(forward, state.variables, batch.images[:1]),
                   plain_flops(step, state, batch), compiled.cost_analysis()["bytes accessed"],
                   compiled.memory_analysis().temp_size_in_bytes,
                   sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
                   sum(x.size for x in jax.tree.leaves(split_parameters(state.params, frozen)[0])),
                   sum(layer.statistics > 0 and layer.name not in frozen for layer in summarise(spec.build())))


def step_seconds(counted: Counted, precision: str, gpus: int) -> float:
    """A step with `counted.batch_size` images on each of so many GPUs: the longer of arithmetic and memory traffic,
    and after it the averages over all GPUs. Starting kernels costs nothing.

    In bfloat16 half of the bytes are counted, but for the update's.
    """
    update = UPDATE_BYTES * counted.trained
    moved = (counted.bytes - update) / (2 if precision == "bfloat16" else 1) + update
    work = max(counted.flops / (REACHED * PEAK[precision]), moved / (REACHED_BANDWIDTH * BANDWIDTH))
    if gpus == 1:
        return work
    way = "in a host" if gpus <= GPUS_A_HOST else "between hosts"
    gradients = 2 * (gpus - 1) / gpus * 4 * counted.trained / LINK[way]
    return work + gradients + (2 * counted.moments + 1) * LATENCY[way]


def epoch_seconds(counted: Counted, precision: str, gpus: int) -> float:
    """An epoch of PCam's training part, without validation and checkpoints."""
    return TRAIN // (counted.batch_size * gpus) * step_seconds(counted, precision, gpus)


def largest_batch(counted: Counted) -> int:
    """The largest power of two of images a GPU whose float32 step fits its memory beside state and all patches."""
    free = USABLE_MEMORY * MEMORY - STORE_BYTES - counted.state
    return 2 ** int(math.log2(free / (counted.temporary / counted.batch_size)))


def markdown(counts: Sequence[Counted], gpus: Sequence[int] = (1, 8, 32)) -> str:
    """What was counted, and what follows of it, as two tables."""
    size = counts[0].batch_size
    rows = [f"| network | GFLOP an image, forward | training | GB moved a step of {size} | GB held by it | state, GB "
            f"| GB with all patches | largest batch a GPU |", "|---|" + "---|" * 7]
    for made in counts:
        rows.append(f"| {made.network} | {made.forward_flops / 1e9:.2f} | {made.flops / size / 1e9:.2f} "
                    f"| {made.bytes / 1e9:.1f} | {made.temporary / 1e9:.2f} | {made.state / 1e9:.2f} "
                    f"| {(made.temporary + made.state + STORE_BYTES) / 1e9:.1f} | {largest_batch(made):,} |")
    heads = (f"{number} x {size}, {precision}" for precision in PEAK for number in gpus)
    rows += ["", f"| network | {' | '.join(heads)} |", "|---|" + "---|" * (len(PEAK) * len(gpus))]
    for made in counts:
        seconds = (epoch_seconds(made, precision, number) for precision in PEAK for number in gpus)
        rows.append(f"| {made.network} | {' | '.join(f'{value:.2f}' for value in seconds)} |")
    return "\n".join(rows)
