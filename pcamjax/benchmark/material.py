"""What is measured, and what all subjects share for it as files in a folder: variables, batch, frozen layers.

Reading it needs NumPy alone, so that the process of a peer holds nothing of ours.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pcamjax.files import read_json


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
      task: train (a step of Adam on softmax cross-entropy, with dropout, without augmentation), infer (logits),
        grad_cam (heat maps), augment (a batch), input (batches of a store), product (of matrices) or bandwidth (of the
        memory).
      network: "" for the tasks that need none.
      frozen: as `config.model.frozen`.
      precision: what is computed in, float32 or bfloat16; variables are float32.
      devices: the batch is spread over so many; peers take one.
      steps_per_dispatch: so many training steps are one program, as `config.input.steps_per_dispatch`; peers' one.
      augmentation: pairs of what `config.augmentation` has.
      data: the store for input, "" for a synthetic one.
    """

    task: str
    network: str = ""
    batch_size: int = 32
    frozen: str = "thesis"
    precision: str = "float32"
    devices: int = 1
    steps_per_dispatch: int = 1
    seed: int = 0
    learning_rate: float = 1e-3
    augmentation: tuple[tuple[str, Any], ...] = ()
    data: str = ""

    def as_json(self) -> str:
        """One line that `from_json` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Case":
        """The case that `as_json` wrote."""
        fields = json.loads(text)
        return Case(**fields | {"augmentation": tuple(map(tuple, fields["augmentation"]))})

    @property
    def material(self) -> "Case":
        """The same for all cases that share their material."""
        return replace(self, task="input" if self.task == "input" else "", precision="float32", devices=1,
                       steps_per_dispatch=1, augmentation=())


@dataclass(frozen=True)
class Material:
    """A case and the files for it in `folder`, which `preparation` writes unless another is named."""

    folder: Path
    case: Case

    def variables(self) -> dict[tuple[str, ...], np.ndarray]:
        """Our variables by their paths, freshly drawn."""
        with np.load(self.folder / "variables.npz") as file:
            return {tuple(name.split("/")): file[name] for name in file.files}

    def array(self, name: str) -> np.ndarray:
        """pixels (uint8 [B,96,96,3]), the same preprocessed as inputs (float32), or labels (int32 [B])."""
        return np.load(self.folder / f"{name}.npy")

    def frozen(self) -> frozenset[str]:
        """The names of the layers that are not trained."""
        return frozenset(read_json(self.folder / "frozen.json"))

    def cam_layer(self) -> str:
        """The name of the layer that the network is explained at."""
        return read_json(self.folder / "cam_layer.json")

    def description(self) -> dict[str, Any]:
        """What Keras says of its network of these layers, which `peers.description` writes."""
        return read_json(self.folder / "network.json")

    def store(self) -> Path:
        """The store that input is read from."""
        return Path(self.case.data or self.folder / "store")
