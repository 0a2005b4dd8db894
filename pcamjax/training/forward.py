"""The network over any number of patches: every example once, on any number of devices."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int, PyTree, UInt8
from tqdm import tqdm

from pcamjax.data.batches import eval_batches
from pcamjax.training.parallel import spread
from pcamjax.training.step import make_forward


class Forward:
    """A network in evaluation mode, compiled once for batches of `batch_size` over `devices`."""

    def __init__(self, model_name: str, batch_size: int, devices: list[jax.Device],
                 wrapper: Literal["shard_map", "pmap"] = "shard_map"):
        self.batch_size = batch_size
        self._compiled: Callable[[Any, Any], Any] = spread(make_forward(model_name), devices, wrapper,
                                                           batch_output=True)

    def logits(self, variables: dict[str, PyTree], images: UInt8[np.ndarray, "m 96 96 3"],
               indices: Int[np.ndarray, " n"], *, progress: str | None = None) -> Float[np.ndarray, "n 2"]:
        """The logits of `images[indices]`, in that order; `progress` names a progress bar, None shows none."""
        pieces = []
        with tqdm(total=len(indices), desc=progress, unit=" images", disable=progress is None) as bar:
            for batch in eval_batches(images, indices, batch_size=self.batch_size):
                pieces.append(np.asarray(self._compiled(variables, batch.images))[batch.mask])
                bar.update(len(pieces[-1]))
        return np.concatenate(pieces)
