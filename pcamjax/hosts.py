"""Several processes as one job: how they find each other, what they must agree on, and how they end together."""

import ctypes
import hashlib
import os
import signal
import sys
import traceback
from glob import glob
from importlib.util import find_spec
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pcamjax.errors import InputError, first_line

HEARTBEAT_SECONDS = 30  # a process that has not been heard of for so long counts as dead
WAIT_AT_END_SECONDS = 3600  # while the first process evaluates and reports, the others wait
GO_ON = ("start the same command on all hosts again, and a training goes on from its last checkpoint, with another "
         "number of hosts too")


def join(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several, by JAX's distributed runtime; before anything of JAX has run.

    Without arguments it does so where the scheduler has started several: the tasks of a Slurm step, the pods of an
    Indexed Job of Kubernetes, the hosts of a Cloud TPU; JAX finds out which. `num_processes` 1 leaves it alone in any
    case. From here on only the first process prints; when another one dies, this one ends within a minute.

    Raises:
      InputError: only some of the arguments are given, or the others cannot be reached.
    """
    given = (coordinator_address, num_processes, process_id)
    if num_processes == 1 or given == (None, None, None) and not _scheduled():
        return
    if None in given and given != (None, None, None):
        raise InputError(f"--coordinator_address={coordinator_address} --num_processes={num_processes} --process_id="
                         f"{process_id}: give all three, or none of them under Slurm, Kubernetes or on a Cloud TPU")
    _say_why_at_abort()
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM and do nothing with it
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                                   shutdown_timeout_seconds=WAIT_AT_END_SECONDS,
                                   cluster_detection_method=None if None in given else "deactivate")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{coordinator_address or 'the scheduler'}: the processes do not find each other "
                         f"({first_line(error)}); the address is the first process' host and a free port, and all "
                         "are started with the same --num_processes and each its own --process_id from 0") from error
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


def _scheduled() -> bool:
    """Whether this looks like one of several processes of Slurm, Kubernetes or a Cloud TPU.

    JAX is asked only then: its own detection would narrow a lone Slurm task to one GPU, and fail in a lone pod.
    """
    if find_spec("libtpu") and (glob("/dev/accel*") or glob("/dev/vfio/*")):
        return True
    return (int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
            or "JOB_COMPLETION_INDEX" in os.environ and find_spec("kubernetes") is not None)


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes: the first of several, or the only one."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def of_first(tree: Any) -> Any:
    """The first process' arrays on every process; `tree` has the same structure, shapes and types on all of them."""
    return multihost_utils.broadcast_one_to_all(tree) if several() else tree


def any_process(flag: bool) -> bool | jax.Array:
    """Whether `flag` is set in one of the processes, all of which call this; an array that is computed meanwhile."""
    if not several():
        return flag
    mesh = Mesh(np.asarray(jax.devices()), ("devices",))
    own = np.full(jax.local_device_count(), flag)
    return _any(jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("devices")), own))


_any = jax.jit(jnp.any)


def require_same(facts: dict[str, Any]) -> None:
    """Compares what each process knows with what the first one knows, and waits until all have come here.

    Raises:
      InputError: on all processes, if one differs.
    """
    if not several():
        return
    digests = [hashlib.sha256(repr(fact).encode()).digest()[:4] for fact in facts.values()]
    everyone = multihost_utils.process_allgather(np.frombuffer(b"".join(digests), np.uint32))
    for process, theirs in enumerate(everyone):
        for name, same in zip(facts, theirs == everyone[0], strict=True):
            if not same:
                raise InputError(f"process {process} has another {name} than process 0; here it is "
                                 f"{str(facts[name])[:200]}; start all with one command and the same files")


def part() -> None:
    """Waits until all processes have come to their end, the first one's last files included."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def leave(code: int) -> NoReturn:
    """Ends this process with an exit code, and one of several at once: no orderly end waits for those that still work
    or are dead, and they end because this one has."""
    if not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def leave_by(error: Exception) -> None:
    """Ends one of several processes by what it could not handle, most often that another one is no longer there; comes
    back where this is the only process."""
    if not jax.distributed.is_initialized():
        return
    if "Gloo" not in str(error):  # which tells of another's death; anything else is a mistake to be found
        traceback.print_exc()
    print(f"error: process {jax.process_index()} of {jax.process_count()} cannot go on ({first_line(error)}); if "
          f"another one has ended, its output says why; {GO_ON}", file=sys.stderr)
    leave(1)


def _say_why_at_abort() -> None:
    """Lets a line follow when JAX's runtime ends this process for the death of another.

    It prints its reason and calls abort(), and cannot call Python instead; so the line is SIGABRT's handler, which runs
    in the very thread that aborts. Python's own handlers would wait for the main thread, which hangs.
    """
    ctypes.CDLL(None).signal(int(signal.SIGABRT), _at_abort)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _at_abort(_: int) -> None:
    os.write(2, f"error: JAX's runtime ended this process, its reason stands above; most likely another one has died; "
                f"{GO_ON}\n".encode())
    os._exit(1)
