"""A network small enough to compile in seconds that has all that the real ones have, and a store to train it on."""

import contextlib
from pathlib import Path

import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from configs import default
from pcamjax.data.splits import make_split
from pcamjax.data.store import PatchBatch, Patches, write_store
from pcamjax.meter import Meter, Spent
from pcamjax.models import MODELS, ModelSpec, unit_range
from pcamjax.models.layers import BatchNorm, Conv, Dropout, Training
from pcamjax.models.network import Network
from pcamjax.models.plain import FlatClassifier, PlainBlocks
from pcamjax.models.variables import initial_variables
from pcamjax.training.checkpoints import Checkpoints
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.run import RunFolder
from pcamjax.training.step import TrainState, initial_state, start_phase


def tiny(training: Training = Training()) -> Network:
    """Scratch #1 with 4, 4 and 8 filters: convolutions, BatchNorm, pooling, dropout and dense layers."""
    return Network(PlainBlocks((4, 4, 8), training), FlatClassifier(training))


class SmoothBlocks(nn.Module):
    """The blocks of `tiny` with GELU and mean pooling: no maximum that rounding could tip."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x, *, train):
        for i in (1, 2, 3):
            x = Conv(4, (3, 3), activation=nn.gelu, name=f"block{i}_conv")(x)
            x = BatchNorm(self.training, name=f"block{i}_bn")(x, train=train)
            x = nn.avg_pool(x, (3, 3), (3, 3))
            x = Dropout(0.25, self.training.axis_name, name=f"block{i}_dropout")(x, train=train)
        return x


def smooth(training: Training = Training()) -> Network:
    """A differentiable relative of `tiny`, but for the classifier's ReLUs."""
    return Network(SmoothBlocks(training), FlatClassifier(training))


def register() -> None:
    """Adds "tiny" and "smooth" to the table of networks."""
    MODELS["tiny"] = ModelSpec(tiny, unit_range, "softmax", "block3_dropout", (0, 0))
    MODELS["smooth"] = ModelSpec(smooth, unit_range, "softmax", "block3_dropout", (0, 0))


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
    """A run of 3 epochs of 6 steps, the first of them for the classifier alone, then with block 1 frozen; with dropout,
    every kind of augmentation and a decaying rate."""
    config = default.get_config()
    config.model.name = "tiny"
    config.data.path = str(store)
    config.batch_size = 8
    config.eval_batch_size = 8
    config.head.epochs = 1
    config.epochs = 2
    config.model.frozen = "block1_pool"
    config.checkpoint_every = 4
    config.augmentation.symmetries = True
    config.optimizer.schedule = {"name": "inverse_time", "learning_rate": 1e-2, "decay": 1e-2}
    config.parallel.devices = 1
    config.update_from_flattened_dict(overrides)
    return config


def split(patches: Patches):
    """The source's own split."""
    return make_split(patches, "official")


class CountingMeter(Meter):
    """As if every stretch took a second, a kWh and 10 kg of CO2."""

    def __init__(self, country: str = ""):
        self.region, self.method = country or None, country and "counting" or None

    @contextlib.contextmanager
    def measure(self):
        yield Spent(1.0, *((1.0, 10.0) if self.region else ()))


def started(model: str, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step of a network that is trained whole."""
    return start_phase(initial_state(initial_variables(model, seed), seed), optimizer)


def untrained_run(path: Path, store: Path, **overrides) -> Path:
    """A run's folder with its configuration and, as checkpoint, freshly drawn variables."""
    made, folder = config(store, **overrides), RunFolder(path)
    folder.claim(made, {"store_sha256": "", "split_sha256": ""})
    checkpoints = Checkpoints(folder.checkpoints)
    checkpoints.save("last", started("tiny", make_optimizer(made.optimizer.to_dict(), 18), made.seed), {})
    checkpoints.close()
    return path
