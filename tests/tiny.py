"""A network small enough to compile in seconds that has all that the real ones have, and a store to train it on."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import default
from pcamjax.data.splits import make_split
from pcamjax.data.store import PatchBatch, Patches, write_store
from pcamjax.models import MODELS, ModelSpec, unit_range
from pcamjax.models.network import Network
from pcamjax.models.plain import FlatClassifier, PlainBlocks


def tiny(axis_name: str | None = None, batch_norm_momentum: float = 0.99) -> Network:
    """Scratch #1 with 4, 4 and 8 filters: convolutions, BatchNorm, pooling, dropout and dense layers."""
    return Network(PlainBlocks((4, 4, 8), batch_norm_momentum, axis_name), FlatClassifier(axis_name))


def register() -> None:
    """Adds "tiny" to the table of networks."""
    MODELS["tiny"] = ModelSpec(tiny, unit_range, "softmax", "block3_dropout", (0, 0))


class NoisySource:
    """Grey noise, brighter where the label is 1: 48 patches to train, 20 to validate, 21 to test, 4 unlabelled."""

    name = "noise"
    counts = {"train": 48, "valid": 20, "test": 25}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def batches(self):
        rng = np.random.default_rng(0)
        for part, count in self.counts.items():
            labels = (np.arange(count) % 2).astype(np.int8)
            images = rng.integers(0, 200, (count, 96, 96, 3)) + 40 * labels[:, None, None, None]
            if part == "test":
                labels[-4:] = -1
            yield PatchBatch(images.astype(np.uint8), labels, [f"{part}_{i}" for i in range(count)],
                             [f"slide_{part}_{i % 3}" for i in range(count)], [part] * count)


def write_noise(path: Path) -> Patches:
    """A store of `NoisySource`."""
    return write_store(NoisySource(), path)


def config(store: Path, **overrides) -> ConfigDict:
    """A run of 3 epochs of 6 steps, with dropout, every kind of augmentation and a decaying rate."""
    config = default.get_config()
    config.model.name = "tiny"
    config.data.path = str(store)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.epochs = 3
    config.checkpoint_every = 4
    config.augmentation.symmetries = True
    config.optimizer.schedule = {"name": "inverse_time", "learning_rate": 1e-2, "decay": 1e-2}
    config.parallel.devices = 1
    config.update_from_flattened_dict(overrides)
    return config


def split(patches: Patches):
    """The source's own split."""
    return make_split(patches, "official")
