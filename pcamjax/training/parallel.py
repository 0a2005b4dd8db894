"""One short place that spreads a function written for one device with a named axis over all devices."""

import os
import platform
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pcamjax.errors import InputError
from pcamjax.hosts import of_first
from pcamjax.training.joined import joined

AXIS = "devices"


def choose_devices(count: int, batch_size: int) -> list[jax.Device]:
    """The first `count` devices, all of them for 0, those of a process side by side; several processes use all.

    Raises:
      InputError: there are not so many, or `batch_size` does not divide among them.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if not 0 <= count <= len(devices):
        raise InputError(f"parallel.devices {count}: this machine has {len(devices)}; choose at most that, or "
                         "--config.parallel.devices=0 for all")
    if (processes := jax.process_count()) > 1:
        if count not in (0, len(devices)):
            raise InputError(f"parallel.devices {count}: {processes} processes have {len(devices)} and use them all; "
                             "choose 0")
        if len({*Counter(device.process_index for device in devices).values()}) > 1:
            raise InputError(f"{len(devices)} devices are not the same number for each of {processes} processes; start "
                             "all on the same kind of host")
    devices = devices[:count or None]
    if batch_size % len(devices):
        raise InputError(f"batch_size {batch_size} does not divide among {len(devices)} devices; choose a multiple")
    return devices


def device_name(devices: list[jax.Device]) -> str:
    """What a reader calls the devices that work is spread over: "2 cores of AMD EPYC", "4 x NVIDIA H100"."""
    if jax.process_count() > 1 and devices[0].platform == "cpu":  # on how many machines is not known
        return f"{len(devices)} CPU devices of {jax.process_count()} processes"
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(encoding="utf-8"), re.M) if info.exists() else []
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def spread(function: Callable, devices: list[jax.Device], wrapper: Literal["shard_map", "pmap"], *,
           batch_output: bool, donate: bool = False) -> Callable[..., Any]:
    """Compiles `function(replicated, batch, *others)` so that every device works on its consecutive piece of the batch.

    Inside, `AXIS` names the axis over the devices. The first argument is the same on all devices (and donated with
    `donate`), as are the others (which are not); the batch is a pytree of host arrays, this process' piece of the
    global batch. The output is again split along the batch with `batch_output`, otherwise the same on all devices. Both
    wrappers compute the same.

    Raises:
      InputError: another wrapper is asked for.
    """
    mesh = Mesh(np.asarray(devices), (AXIS,))
    along_batch = NamedSharding(mesh, PartitionSpec(AXIS))
    donated = (0,) if donate else ()

    def on_one(replicated: Any, batch: Any, others: tuple) -> Any:
        return function(replicated, batch, *others)

    if wrapper == "shard_map":
        everywhere, out_specs = PartitionSpec(), PartitionSpec(AXIS) if batch_output else PartitionSpec()
        # check_vma=False: gradients of replicated parameters stay per device until the step averages them itself.
        mapped = jax.jit(jax.shard_map(on_one, mesh=mesh, in_specs=(everywhere, PartitionSpec(AXIS), everywhere),
                                       out_specs=out_specs, check_vma=False), donate_argnums=donated)
        return lambda replicated, batch, *others: mapped(replicated, jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(along_batch, x), batch), others)
    if wrapper == "pmap" and jax.process_count() > 1:
        raise InputError("parallel.wrapper 'pmap' works in one process; several need shard_map")
    if wrapper == "pmap":
        mapped = jax.pmap(on_one, AXIS, in_axes=(None, 0, None), out_axes=0 if batch_output else None, devices=devices)

        def run(replicated: Any, batch: Any, *others: Any) -> Any:
            out = mapped(replicated, jax.tree.map(lambda x: x.reshape(len(devices), -1, *x.shape[1:]), batch), others)
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out) if batch_output else out
        return run
    raise InputError(f"parallel.wrapper {wrapper!r} is not known; choose shard_map or pmap")


def mean_over_devices(tree: Any) -> Any:
    """The mean over `AXIS` of each array of `tree`, within what `spread` compiles; small arrays travel as one."""
    pieces, apart = joined(tree)
    return apart(jax.lax.pmean(pieces, AXIS))


def replicate(tree: Any, devices: list[jax.Device]) -> Any:
    """A copy of every array of `tree` on every device; with several processes all of them call it, and the first one's
    arrays are what is copied."""
    everywhere = NamedSharding(Mesh(np.asarray(devices), (AXIS,)), PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, everywhere)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(everywhere, np.asarray(x), np.shape(x)),
                        of_first(tree))


def whole(output: jax.Array) -> np.ndarray:
    """An output that is split along the batch, with the pieces that lie with other processes; all of them call it."""
    return np.asarray(output if output.is_fully_addressable else multihost_utils.process_allgather(output, tiled=True))
