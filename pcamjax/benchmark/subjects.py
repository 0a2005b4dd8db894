"""The subjects of the benchmark: ourselves, our peers and the bare machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pcamjax.benchmark.memory import peak_memory


@dataclass(frozen=True)
class Work:
    """What a subject does for a case.

    Attributes:
      run: does all of it once and waits for its end; returns the loss of a step, the logits, or what there is.
      facts: what else is known of it: compile_seconds, flops, bytes (read and written), images (a time, if not one
        batch), device.
      peak_bytes: the largest memory in use so far, of the process or of its accelerator.
      steps: how many training steps a run takes; the seconds of its rounds are those of one, as is what XLA counts.
    """

    run: Callable[[], Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    peak_bytes: Callable[[], int] = peak_memory
    steps: int = 1


@dataclass(frozen=True)
class Subject:
    """A framework at its best settings.

    Attributes:
      module: has a function `make_<task>(material, **options)`, which returns a `Work`, for each task that it can do.
      tasks: those that the job asks it for.
      environment: variables of its process, beside those of all.
      prepared_by: the modules that, run one after the other, write its material.
    """

    module: str
    tasks: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    prepared_by: tuple[str, ...] = ("pcamjax.benchmark.preparation",)


OURS = "pcamjax"
# The tasks in which all do the same, those of one network, those of batches alone, and those of the bare machine.
COMPARED = ("train", "infer")
OF_NETWORKS = (*COMPARED, "grad_cam")
OF_BATCHES = ("augment", "input")
ROOFS = ("product", "bandwidth")

_PEERS = "pcamjax.benchmark.peers"
# A compilation is timed, and accelerators are shared with those that wait.
_JAX = {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
_DESCRIBED = (*Subject.prepared_by, f"{_PEERS}.description")

SUBJECTS: dict[str, Subject] = {
    OURS: Subject("pcamjax.benchmark.ours", (*OF_NETWORKS, *OF_BATCHES), _JAX),
    "keras_tensorflow": Subject(f"{_PEERS}.keras_tensorflow", COMPARED, _TENSORFLOW),
    "keras_tensorflow_xla": Subject(f"{_PEERS}.keras_tensorflow", COMPARED, _TENSORFLOW, {"jit_compile": True}),
    "keras_jax": Subject(f"{_PEERS}.keras_jax", COMPARED, _JAX | {"KERAS_BACKEND": "jax"}),
    "torch": Subject(f"{_PEERS}.pytorch", (*COMPARED, "product"), prepared_by=_DESCRIBED),
    "pytorch_grad_cam": Subject(f"{_PEERS}.pytorch", ("grad_cam",), prepared_by=_DESCRIBED),
    "pytorch_grad_cam_stopped": Subject(f"{_PEERS}.pytorch", ("grad_cam",), options={"stop_at_layer": True},
                                        prepared_by=_DESCRIBED),
    "torch_compile": Subject(f"{_PEERS}.pytorch", COMPARED, options={"compiled": True}, prepared_by=_DESCRIBED),
    "machine": Subject("pcamjax.benchmark.machine", ROOFS, _JAX),
}
