"""Random keys that follow the example, not the device it lies on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key


def keys_by_position(key: Key[Array, ""], local_batch: int, axis_name: str | None) -> Key[Array, " b"]:
    """One key per local example, folded with the example's position in the global batch.

    What is drawn from them is then the same on any number of devices. `axis_name` is the mapped axis over which the
    global batch is split into equal, consecutive pieces of `local_batch` examples; None means one piece.
    """
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * local_batch
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(local_batch))
