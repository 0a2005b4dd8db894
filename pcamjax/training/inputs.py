"""Where the patches of a run lie while it trains: on the host, prefetched batch by batch, or all on the devices."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree, UInt8
from ml_collections import ConfigDict

from pcamjax.data.batches import Batch, batch_rows, process_piece, train_batches
from pcamjax.data.store import BATCH, IMAGE_SHAPE, Patches
from pcamjax.errors import InputError
from pcamjax.hosts import of_first, several
from pcamjax.training.parallel import replicate

PLACES = ("auto", "device", "host")


@dataclass(frozen=True)
class Inputs:
    """What the steps of a run read, and its validation.

    Attributes:
      items: of each step to come its `Batch`, or the rows of `store` that are in it.
      store: the patches that train and validate on every device; None where they stay on the host.
      images: where validation finds its patches, on the host or the device.
      valid: the rows of `images` that validate.
    """

    items: Iterator[PyTree]
    store: Batch | None
    images: UInt8[np.ndarray | jax.Array, "m 96 96 3"]
    valid: Int[np.ndarray, " v"]


def choose_place(where: str, count: int, devices: list[jax.Device]) -> str:
    """"device" or "host" for `count` images: "auto" is the device if it is none of the host's own memory, and if they
    leave half of what is free there to the training itself.

    Raises:
      InputError: `where` is neither of these, or "device" and they do not fit.
    """
    if where not in PLACES:
        raise InputError(f"config.input.where = {where!r}: choose one of {', '.join(PLACES)}")
    own = [device for device in devices if device.process_index == jax.process_index()] if several() else devices
    size, stats = count * int(np.prod(IMAGE_SHAPE)), [device.memory_stats() for device in own]
    free = min((stat["bytes_limit"] - stat["bytes_in_use"] for stat in stats if stat), default=None)
    if where == "device" and free is not None and size > free:
        raise InputError(f"config.input.where = 'device': {count} images of training and validation are "
                         f"{size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on the device; choose auto or host")
    fits = devices[0].platform != "cpu" and free is not None and size <= free / 2
    # Where the first process has room: it may be less elsewhere, but all must do the same.
    fits = bool(of_first(np.bool_(fits)))
    return where if where != "auto" else "device" if fits else "host"


def open_inputs(place: str, config: ConfigDict, patches: Patches, train: Int[np.ndarray, " n"],
                valid: Int[np.ndarray, " v"], devices: list[jax.Device], first_step: int, last_step: int) -> Inputs:
    """The inputs of the steps `first_step` to `last_step - 1`, the same batches at either place; of several processes
    each has its own piece of them."""
    order = {"batch_size": config.batch_size, "seed": config.seed}
    process = jax.process_index(), jax.process_count()
    if place == "host":
        batches = train_batches(patches.images, patches.labels, train, **order, first_step=first_step,
                                last_step=last_step, process=process)
        return Inputs(batches, None, patches.images, valid)
    rows = np.union1d(train, valid)
    train, valid = (np.searchsorted(rows, part).astype(np.int32) for part in (train, valid))
    store = load_store(patches, rows, devices)
    piece = process_piece(config.batch_size, process)
    items = (batch_rows(train, step, **order)[piece] for step in range(first_step, last_step))
    return Inputs(items, store, store.images, valid)


def load_store(patches: Patches, rows: Int[np.ndarray, " n"], devices: list[jax.Device]) -> Batch:
    """These rows of a store on every device, read piece by piece, so that the host never holds them all.

    Each device has all of them: a batch comes from anywhere, so pieces of a divided store would have to travel.
    """
    labels = replicate(patches.labels[rows].astype(np.int32), devices)
    images = jax.jit(lambda: jnp.zeros((len(rows), *IMAGE_SHAPE), jnp.uint8), out_shardings=labels.sharding)()
    write = jax.jit(lambda images, piece, first: jax.lax.dynamic_update_slice_in_dim(images, piece, first, 0),
                    donate_argnums=0)
    for first in range(0, len(rows), BATCH):
        images = write(images, patches.images[rows[first:first + BATCH]], first)
    return Batch(images, labels)
