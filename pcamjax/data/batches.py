"""Index batches of a store: shuffled for training, padded and masked for evaluation, prefetched by grain."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Bool, Int, UInt8

from pcamjax.errors import InputError

PREFETCH = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


class Batch(NamedTuple):
    """Images 0..255 and labels, 1 metastasis and 0 healthy."""

    images: UInt8[np.ndarray, "b 96 96 3"]
    labels: Int[np.ndarray, " b"]


class EvalBatch(NamedTuple):
    """Images 0..255, and which rows count: the others are padding."""

    images: UInt8[np.ndarray, "b 96 96 3"]
    mask: Bool[np.ndarray, " b"]


@functools.lru_cache(maxsize=4)
def epoch_permutation(seed: int, epoch: int, size: int) -> Int[np.ndarray, " size"]:
    """The order in which an epoch (from 0) visits `size` examples; a function of its arguments alone."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)


def steps_per_epoch(size: int, batch_size: int) -> int:
    """How many full batches an epoch of `size` examples has; the few left over differ from epoch to epoch.

    Raises:
      InputError: there is not one full batch.
    """
    if size < batch_size:
        raise InputError(f"batch_size {batch_size} is larger than the {size} patches to train on; "
                         "choose a smaller one or more data")
    return size // batch_size


def batch_rows(indices: Int[np.ndarray, " n"], step: int, *, batch_size: int, seed: int) -> Int[np.ndarray, " b"]:
    """Which of `indices` the batch of a step (from 0) of a run holds, in order; a function of its arguments alone."""
    epoch, position = divmod(step, steps_per_epoch(len(indices), batch_size))
    order = epoch_permutation(seed, epoch, len(indices))
    return indices[order[position * batch_size:(position + 1) * batch_size]]


def train_batches(images: UInt8[np.ndarray, "m 96 96 3"], labels: Int[np.ndarray, " m"],
                  indices: Int[np.ndarray, " n"], *, batch_size: int, seed: int, first_step: int, last_step: int,
                  process: tuple[int, int] = (0, 1)) -> Iterator[Batch]:
    """The batches of the steps `first_step` to `last_step - 1` of a training run on `images[indices]`.

    What a batch holds is `batch_rows`, so a run resumes by asking for the steps it lacks. `process` is (index, count):
    each process reads its own consecutive piece of every global batch.
    """
    piece = process_piece(batch_size, process)

    def batch(step: int) -> Batch:
        rows = batch_rows(indices, int(step), batch_size=batch_size, seed=seed)[piece]
        return Batch(images[rows], labels[rows].astype(np.int32))

    return _prefetched(grain.MapDataset.range(first_step, last_step).map(batch))


def eval_batches(images: UInt8[np.ndarray, "m 96 96 3"], indices: Int[np.ndarray, " n"], *, batch_size: int,
                 process: tuple[int, int] = (0, 1)) -> Iterator[EvalBatch]:
    """Every example of `images[indices]` once and in order; the last batch is filled up with masked rows."""
    piece = process_piece(batch_size, process)
    parts = grain.MapDataset.source(eval_rows(indices, batch_size=batch_size))
    return _prefetched(parts.map(lambda part: EvalBatch(images[part[0][piece]], part[1][piece])))


def eval_rows(indices: Int[np.ndarray, " n"], *, batch_size: int
              ) -> list[tuple[Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]]:
    """Which of `indices` each batch of an evaluation holds, and which of these are no padding."""
    places = np.arange(-(-len(indices) // batch_size) * batch_size).reshape(-1, batch_size)
    return list(zip(indices[np.minimum(places, len(indices) - 1)], places < len(indices), strict=True))


def process_piece(batch_size: int, process: tuple[int, int]) -> slice:
    """The rows of a global batch that belong to a process, which is (index, count).

    Raises:
      InputError: the batch does not divide among so many.
    """
    index, count = process
    if batch_size % count:
        raise InputError(f"batch_size {batch_size} does not divide among {count} processes; choose a "
                         "multiple of it")
    local = batch_size // count
    return slice(index * local, (index + 1) * local)


def _prefetched(dataset: grain.MapDataset) -> Iterator[NamedTuple]:
    return iter(dataset.to_iter_dataset(PREFETCH))
