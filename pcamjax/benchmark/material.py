"""What all subjects of a comparison share, as files in a folder: the case, its variables, its batch.

Reading it needs NumPy alone, so that a peer's process holds nothing of ours.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pcamjax.errors import InputError
from pcamjax.files import read_json


@dataclass(frozen=True)
class Case:
    """What is measured: a network, how much of it is trained, with which batch.

    Attributes:
      task: "train" for a step of Adam on the softmax cross-entropy, dropout included; "infer" for logits.
      frozen: as `config.model.frozen`.
    """

    network: str
    task: str = "train"
    batch_size: int = 32
    frozen: str = "thesis"
    seed: int = 0
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Material:
    """The files of a case in `folder`, which `preparation.prepare` writes."""

    folder: Path
    case: Case = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "case", Case(**read_json(self.folder / "case.json")))

    @cached_property
    def variables(self) -> dict[tuple[str, ...], np.ndarray]:
        """Our variables by their paths, freshly drawn."""
        with np.load(self.folder / "variables.npz") as file:
            return {tuple(name.split("/")): file[name] for name in file.files}

    def array(self, name: str) -> np.ndarray:
        """pixels (uint8 [B,96,96,3]), the same preprocessed as inputs (float32), or labels (int32 [B])."""
        return np.load(self.folder / f"{name}.npy")

    @property
    def frozen(self) -> frozenset[str]:
        """The names of the layers that are not trained."""
        return frozenset(read_json(self.folder / "frozen.json"))

    @property
    def description(self) -> dict[str, Any]:
        """What Keras says of its network of these layers.

        Raises:
          InputError: there was no Keras to ask.
        """
        if not (self.folder / "network.json").exists():
            raise InputError("Keras, which describes the network, cannot be imported; pip install 'pcamjax[benchmark]'")
        return read_json(self.folder / "network.json")


def write_case(case: Case, folder: Path) -> None:
    """Begins a folder of material."""
    (folder / "case.json").write_text(json.dumps(asdict(case)), encoding="utf-8")
