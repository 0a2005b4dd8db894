"""Our own training step, forward pass, heat maps, augmentation and input as subjects of the benchmark."""

import gc
import itertools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.experimental.serialize_executable import deserialize_and_load, serialize
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.memory import peak_memory
from pcamjax.benchmark.subjects import Work
from pcamjax.data.augment import augment
from pcamjax.data.batches import Batch, train_batches
from pcamjax.data.store import Patches
from pcamjax.explain.heat_maps import explainer
from pcamjax.host_memory import give_back_freed_memory
from pcamjax.ops import compiled as kernels
from pcamjax.ops.flops import kernel_bytes, plain_flops
from pcamjax.ops.preparation import prepared
from pcamjax.training.forward import images_together
from pcamjax.training.losses import make_loss
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.parallel import AXIS, choose_devices, replicate, spread
from pcamjax.training.step import initial_state, make_forward, make_steps, make_train_step, start_phase

INPUT_BATCHES = 20  # drawn a time, for one alone is a matter of what lies ready


def make_train(material: Material) -> Work:
    """One optimizer step, or as many as the case has in a program."""
    case = material.case
    devices = choose_devices(case.devices, case.batch_size)
    optimizer = make_optimizer({"name": "adam", "schedule": {"name": "constant", "learning_rate": case.learning_rate}},
                               total_steps=1)
    frozen, loss = material.frozen(), make_loss("categorical_crossentropy", "softmax")
    state = replicate(start_phase(initial_state(_variables(material), case.seed), optimizer, frozen), devices)
    limit, count = case.steps_per_dispatch, np.int32(case.steps_per_dispatch)
    step = make_train_step(case.network, optimizer, loss, {}, frozen=frozen)
    dispatch = spread(make_steps(step, limit), devices, "shard_map", batch_output=False)
    items = jax.tree.map(lambda x: np.stack([x] * limit, axis=1),
                         Batch(material.array("pixels"), material.array("labels")))
    items = jax.device_put(items, _along_batch(devices))
    steps, facts = _compiled(lambda *arguments: dispatch(*arguments, None), state, items, count, devices=case.devices,
                             donate=True)
    program = serialize(steps)
    del steps
    steps = _loaded_anew(program, devices)

    def run() -> float:
        nonlocal state
        state, metrics = jax.block_until_ready(steps(state, items, count))
        return float(metrics.loss[-1])

    return Work(run, facts, _peak_bytes(devices), limit)


def make_infer(material: Material) -> Work:
    """The logits [B,2] of the batch, taken in such parts as an evaluation would where they are even."""
    case = material.case
    devices = choose_devices(case.devices, case.batch_size)
    variables = replicate(_variables(material), devices)
    size = images_together(case.batch_size, devices)
    count = case.batch_size // size if case.batch_size % size == 0 else 1
    parts = [jax.device_put(part, _along_batch(devices)) for part in np.split(material.array("pixels"), count)]
    whole = make_forward(case.network)
    before, after = prepared(whole)
    start = time.perf_counter()
    both = variables, spread(before, devices, "shard_map", batch_output=False)(variables, parts[0])
    seconds = time.perf_counter() - start
    forward = spread(after, devices, "shard_map", batch_output=True)
    forward, facts = _compiled(forward, both, parts[0], devices=case.devices)
    facts["compile_seconds"] += seconds
    # The second part of the program has the kernels' alone.
    facts["flops"] = plain_flops(jax.jit(whole), variables, parts[0]) * count
    facts["bytes"] *= count

    def run() -> np.ndarray:
        return np.concatenate([np.asarray(forward(both, part)) for part in parts])

    return Work(run, facts, _peak_bytes(devices))


def make_grad_cam(material: Material) -> Work:
    """Heat maps of the batch at its own size, for metastasis, at the layer that the network is explained at."""
    variables, images = jax.device_put((_variables(material), material.array("pixels")))
    heat_maps, facts = _compiled(explainer(material.case.network), variables, images)
    return Work(lambda: np.asarray(heat_maps(variables, images)[0]).mean(), facts, _peak_bytes(jax.devices()[:1]))


def make_augment(material: Material) -> Work:
    """The batch augmented as the case says."""
    config = dict(material.case.augmentation)
    images = jax.device_put(material.array("pixels"))
    keys = jax.random.split(jax.random.key(material.case.seed), len(images))
    augmented, facts = _compiled(lambda images, keys: augment(images, keys, config), images, keys)
    return Work(lambda: float(jax.block_until_ready(augmented(images, keys))[0, 0, 0, 0]), facts,
                _peak_bytes(jax.devices()[:1]))


def make_input(material: Material) -> Work:
    """Training batches of a store, on the host."""
    patches, size = Patches.open(material.store()), material.case.batch_size
    batches = train_batches(patches.images, patches.labels, np.arange(len(patches.labels)), batch_size=size,
                            seed=material.case.seed, first_step=0, last_step=2**31)
    return Work(lambda: sum(len(batch.labels) for batch in itertools.islice(batches, INPUT_BATCHES)),
                {"images": INPUT_BATCHES * size})


def _compiled(function: Callable, *arguments: Any, devices: int = 1, donate: bool = False
              ) -> tuple[Callable, dict[str, Any]]:
    """The compiled function, and what its compiler says of it, on all devices together; FLOPs of the plain program."""
    jitted = jax.jit(function, donate_argnums=(0,) if donate else ())
    start = time.perf_counter()
    compiled = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    touched = compiled.cost_analysis()["bytes accessed"] + kernel_bytes(function, *arguments)
    return compiled, {"compile_seconds": seconds, "flops": plain_flops(jitted, *arguments) * devices,
                      "bytes": touched * devices,
                      "device": jax.devices()[0].device_kind, "kernels": kernels.status()}


def _loaded_anew(program: tuple, devices: list[jax.Device]) -> Callable:
    """What `serialize` gave, as a job has it from an earlier start: a compilation leaves memory in pieces.

    XLA cannot serialize all of a program that came from JAX's cache; the benchmark's processes use none.
    """
    jax.clear_caches()
    gc.collect()
    give_back_freed_memory()
    return deserialize_and_load(*program, execution_devices=devices)


def _peak_bytes(devices: list[jax.Device]) -> Callable[[], int]:
    if devices[0].platform == "cpu":
        return peak_memory
    return lambda: max(device.memory_stats()["peak_bytes_in_use"] for device in devices)


def _variables(material: Material) -> dict[str, Any]:
    return {"batch_stats": {}, **unflatten_dict(material.variables())}


def _along_batch(devices: list[jax.Device]) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec(AXIS))
