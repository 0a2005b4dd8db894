"""From a run's folder, or variables of any network, to predictions."""

import contextlib
import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree, UInt8
from ml_collections import ConfigDict

from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.hosts import require_same
from pcamjax.inference.averaging import mean_logits, symmetric_views
from pcamjax.inference.predictions import Predictions, scores
from pcamjax.meter import Meter
from pcamjax.models import model_spec
from pcamjax.models.network import Network
from pcamjax.models.variables import variable_shapes
from pcamjax.training.checkpoints import Checkpoints, Kind
from pcamjax.training.forward import Forward
from pcamjax.training.parallel import choose_devices, replicate
from pcamjax.training.run import RunFolder


@dataclass(frozen=True)
class Run:
    """A trained network: its configuration, its module and its variables, and which checkpoint these are from."""

    folder: RunFolder
    config: ConfigDict
    network: Network
    variables: dict[str, PyTree]
    checkpoint: str

    def preprocess(self, images: UInt8[np.ndarray, "b h w 3"]) -> Float[jax.Array, "b h w 3"]:
        """Pixels 0..255 to what the network takes."""
        return model_spec(self.config.model.name).preprocess(jax.numpy.asarray(images, jax.numpy.float32))


def load_run(path: str | os.PathLike, checkpoint: Kind = "last", config: ConfigDict | None = None) -> Run:
    """Opens the run in a folder; `config` replaces its own where data or devices have moved.

    Raises:
      InputError: there is no run, no such checkpoint, or it is of another network.
    """
    folder = RunFolder(path)
    config = config or folder.config()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device),
                        variable_shapes(config.model.name))
    with contextlib.closing(Checkpoints(folder.checkpoints)) as checkpoints:
        variables = checkpoints.restore_variables(checkpoint, like)
        name = f"{checkpoint}, step {checkpoints.latest_step(checkpoint)}"
    return Run(folder, config, model_spec(config.model.name).build(), variables, name)


def predict(run: Run, images: UInt8[np.ndarray, "n 96 96 3"], batch_size: int = 256, *,
            symmetries: bool = False) -> Float[np.ndarray, " n"]:
    """The scores of images in memory: the probability of metastasis in the centre 32x32, in [0,1].

    With `symmetries` it is the mean over the eight symmetries of the square, at eight times the work, and is the same
    to the bit for an image that is turned or mirrored.

    Raises:
      InputError: the images are not uint8 [n,96,96,3], or there are none.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.shape[1:] != (96, 96, 3) or not len(images):
        raise InputError(f"images are {images.dtype} {list(images.shape)}; expected uint8 [n, 96, 96, 3] with n > 0, "
                         "RGB 0..255")
    return scores(_logits(run, images, np.arange(len(images)), batch_size, symmetries)[0])


def predict_split(run: Run, patches: Patches, split: Split, role: str, *, symmetries: bool = False) -> Predictions:
    """The predictions of one role ("train", "valid", "test") of a split, with a progress bar; averaged as by `predict`.

    Raises:
      InputError: the split has no such role.
    """
    return measured_predictions(run, patches, split, role, symmetries=symmetries)[0]


def measured_predictions(run: Run, patches: Patches, split: Split, role: str, *, symmetries: bool = False,
                         meter: Meter | None = None) -> tuple[Predictions, dict[str, Any]]:
    """`predict_split` and what it cost; with a meter without compilation, for a first batch is scored unmeasured.

    Raises:
      InputError: the split has no such role.
    """
    indices = split.part(role)
    require_same({"store or part": (patches.sha256, sha256(indices.tobytes()).hexdigest())})
    logits, cost = _logits(run, patches.images, indices, run.config.eval_batch_size, symmetries, role, meter)
    meta = {"model": run.config.model.name, "run": run.folder.path.name, "checkpoint": run.checkpoint, "role": role,
            "split": split.name, "split_description": split.description, "leaks_slides": split.leaks_slides,
            "store_sha256": patches.sha256}
    if symmetries:
        meta["averaged"] = "probability over the eight symmetries of the square"
    return Predictions(ids=patches.ids[indices], slides=patches.slides[indices], labels=patches.labels[indices],
                       scores=scores(logits), logits=logits, meta=meta), cost


def _logits(run: Run, images: UInt8[np.ndarray, "m 96 96 3"], indices: Int[np.ndarray, " n"], batch_size: int,
            symmetries: bool, progress: str | None = None, meter: Meter | None = None
            ) -> tuple[Float[np.ndarray, "n 2"], dict[str, Any]]:
    """The logits of `images[indices]`, and what they cost."""
    parallel = run.config.parallel
    devices = choose_devices(parallel.devices, batch_size)
    forward = Forward(run.config.model.name, batch_size, devices, parallel.wrapper,
                      run.config.model.get("precision", "float32"))
    variables = replicate(run.variables, devices)
    if meter:
        forward.logits(variables, images, indices[:forward.batch_size])
    meter = meter or Meter()
    with meter.measure() as spent:
        if symmetries:
            # An image has the same place in a batch in every view, so turning it only permutes its eight logits.
            views = [forward.logits(variables, view, indices, progress=progress and f"{progress}, view {number} of 8")
                     for number, view in enumerate(symmetric_views(images), 1)]
            margins = np.stack([logits[:, 1].astype(np.float64) - logits[:, 0] for logits in views])
            logits = mean_logits(margins).astype(np.float32)
        else:
            logits = forward.logits(variables, images, indices, progress=progress)
    return logits, meter.inference_cost(spent, len(indices))
