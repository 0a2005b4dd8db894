"""Time a training step and measure its memory, with layers frozen as configured against all layers trained."""

import itertools
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import launch
from pcamjax.data.batches import Batch
from pcamjax.errors import InputError
from pcamjax.files import write_json
from pcamjax.models import frozen_layers, model_spec
from pcamjax.models.variables import initial_variables
from pcamjax.training.losses import make_loss
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.parallel import choose_devices, replicate, spread
from pcamjax.training.run import environment
from pcamjax.training.step import initial_state, make_train_step, start_phase

NETWORKS = flags.DEFINE_list("networks", ["vgg19", "inception_v3", "resnet50", "xception", "densenet201", "mobilenet"],
                             "The networks to measure.")
FROZEN = flags.DEFINE_list("frozen", ["thesis", "none"], "What is frozen, as config.model.frozen.")
STEPS = flags.DEFINE_integer("steps", 10, "Steps to time in each process.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 2, "Processes for each measurement, in turn with the others.", lower_bound=1)


def measure(config: dict[str, Any], name: str, frozen: str, steps: int) -> dict[str, Any]:
    """Seconds of each of `steps` training steps after the first, and the peak of resident memory during them."""
    layers = frozen_layers(name, frozen)
    devices = choose_devices(config["parallel"]["devices"], config["batch_size"])
    optimizer = make_optimizer(config["optimizer"], steps)
    loss = make_loss(config["loss"]["name"], model_spec(name).activation)
    state = replicate(start_phase(initial_state(initial_variables(name, 0), 0), optimizer, layers), devices)
    step = spread(make_train_step(name, optimizer, loss, config["augmentation"], frozen=layers), devices,
                  config["parallel"]["wrapper"], batch_output=False, donate=True)
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, 256, (config["batch_size"], 96, 96, 3), dtype=np.uint8),
                  rng.integers(0, 2, config["batch_size"]).astype(np.int32))
    state, metrics = jax.block_until_ready(step(state, batch))
    forget_peak_memory()
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "peak_bytes": peak_memory()}


def forget_peak_memory() -> None:
    """Makes Linux count the peak from here on, so that what compiling took does not hide a step's."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_memory() -> int:
    """The largest resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def run() -> None:
    config = launch.new_config().to_dict()
    if not NETWORKS.value or not FROZEN.value or config["batch_size"] < 1:
        raise InputError(f"--networks={','.join(NETWORKS.value)} --frozen={','.join(FROZEN.value)} "
                         f"--config.batch_size={config['batch_size']}: expected at least one of each")
    choose_devices(config["parallel"]["devices"], config["batch_size"])
    for name, frozen in itertools.product(NETWORKS.value, FROZEN.value):
        frozen_layers(name, frozen)  # so that a wrong name costs no measurement
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in NETWORKS.value:
        for _ in range(ROUNDS.value):
            for frozen in FROZEN.value:
                # A process of its own each time: memory that another measurement left behind would count as well.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    made = pool.apply(measure, (config, name, frozen, STEPS.value))
                cells.setdefault((name, frozen), []).append(made)
                print(f"{name}, {frozen}: {statistics.median(made['seconds']):.3f} s a step", flush=True)
    print(f"batch {config['batch_size']}, {config['optimizer']['name']}; median of {STEPS.value * ROUNDS.value} steps")
    print(f"{'network':<14}{'frozen':<10}{'s a step':>10}{'images/s':>10}{'peak GiB':>10}")
    rows = []
    for (name, frozen), rounds in cells.items():
        seconds = statistics.median(second for made in rounds for second in made["seconds"])
        peak = max(made["peak_bytes"] for made in rounds)
        rows.append({"network": name, "frozen": frozen, "seconds": seconds, "peak_bytes": peak, "rounds": rounds})
        print(f"{name:<14}{frozen:<10}{seconds:>10.3f}{config['batch_size'] / seconds:>10.1f}{peak / 2**30:>10.2f}")
    if launch.OUTPUT.value:
        write_json(launch.OUTPUT.value, {"environment": environment(), "config": config, "rows": rows})


if __name__ == "__main__":
    launch.main(run)
