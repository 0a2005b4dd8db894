"""The network over any number of patches: every example once, on any number of devices."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, UInt8
from tqdm import tqdm

from pcamjax.data.batches import eval_batches, eval_rows, process_piece
from pcamjax.ops.preparation import prepared
from pcamjax.training.parallel import spread, whole
from pcamjax.training.step import make_forward

ON_A_CPU = 64  # images that a CPU device takes at a time


def images_together(batch_size: int, devices: list[jax.Device]) -> int:
    """How many images of a batch go through a network at a time: all, but of a CPU device at most ON_A_CPU.

    The maps of more leave the caches, and their memory is too large to be kept for the next (docs/performance.md).
    """
    return min(batch_size, ON_A_CPU * len(devices)) if devices[0].platform == "cpu" else batch_size


class Forward:
    """A network in evaluation mode, compiled once for batches of `batch_size`, or parts of them, over `devices`."""

    def __init__(self, model_name: str, batch_size: int, devices: list[jax.Device],
                 wrapper: Literal["shard_map", "pmap"] = "shard_map", precision: str = "float32"):
        self.batch_size = images_together(batch_size, devices)
        forward = make_forward(model_name, precision)

        def gathered(variables: dict[str, PyTree], rows: Int[Array, " b"], images: UInt8[Array, "m 96 96 3"]) -> Array:
            return forward(variables, images.at[rows].get(mode="promise_in_bounds"))

        # Compiled when first called, so only one of them is.
        self._of_images, self._of_rows = (
            (spread(before, devices, wrapper, batch_output=False), spread(after, devices, wrapper, batch_output=True))
            for before, after in map(prepared, (forward, gathered)))

    def logits(self, variables: dict[str, PyTree], images: UInt8[np.ndarray | jax.Array, "m 96 96 3"],
               indices: Int[np.ndarray, " n"], *, progress: str | None = None) -> Float[np.ndarray, "n 2"]:
        """The logits of `images[indices]`, in that order; `progress` names a progress bar, None shows none.

        Images that lie on all of the devices already stay there. Of several processes each reads its own rows, and all
        get all logits.
        """
        process = jax.process_index(), jax.process_count()
        parts = eval_rows(indices, batch_size=self.batch_size)
        if isinstance(images, jax.Array):
            piece = process_piece(self.batch_size, process)
            outputs = _outputs(self._of_rows, variables, ((rows[piece], images) for rows, _ in parts))
        else:
            batches = eval_batches(images, indices, batch_size=self.batch_size, process=process)
            outputs = _outputs(self._of_images, variables, ((batch.images,) for batch in batches))
        pieces = []
        with tqdm(total=len(indices), desc=progress, unit=" images", disable=progress is None) as bar:
            for (_, mask), logits in zip(parts, _one_ahead(outputs), strict=True):
                pieces.append(whole(logits)[mask])
                bar.update(len(pieces[-1]))
        return np.concatenate(pieces)


def _outputs(parts: tuple[Callable, Callable], variables: dict[str, PyTree], batches: Iterator[tuple]
             ) -> Iterator[jax.Array]:
    """What the second part makes of each batch and of what the first has made of the variables."""
    before, after = parts
    first = next(batches)
    both = variables, before(variables, *first)
    for batch in itertools.chain([first], batches):
        yield after(both, *batch)


def _one_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The items, each once the next is under way: a device gets its next batch before the result of one is read."""
    before = next(items)
    for item in items:
        yield before
        before = item
    yield before
