"""The subjects of the benchmark: ourselves and our peers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Subject:
    """A framework at its best settings.

    Attributes:
      module: has `make_train(material, **options)` and `make_infer(material, **options)`, each of which returns a
        function without arguments that does all of the work once and waits for its end.
      environment: variables of its process.
    """

    module: str
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


_PEERS = "pcamjax.benchmark.peers"
_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
# Otherwise glibc gives PyTorch's larger tensors back after every use, to be zeroed by the kernel before the next: scratch
# #1 then took 1.2 times as long to train and 1.6 times to infer. TensorFlow and XLA do not go through glibc for each.
_TORCH = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}

SUBJECTS: dict[str, Subject] = {
    "pcamjax": Subject("pcamjax.benchmark.ours"),
    "keras_tensorflow": Subject(f"{_PEERS}.keras_tensorflow", _TENSORFLOW),
    "keras_tensorflow_xla": Subject(f"{_PEERS}.keras_tensorflow", _TENSORFLOW, {"jit_compile": True}),
    "keras_jax": Subject(f"{_PEERS}.keras_jax", {"KERAS_BACKEND": "jax"}),
    "torch": Subject(f"{_PEERS}.pytorch", _TORCH),
    "torch_compile": Subject(f"{_PEERS}.pytorch", _TORCH, {"compiled": True}),
}
