"""The small arrays of a tree as one: a program pays for each by an argument, a loop and a meeting of its devices."""

from collections.abc import Callable

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

SMALL = 2**14  # values of an array; to copy as many takes no longer than to handle another array


def joined(tree: PyTree[Array | np.ndarray]) -> tuple[list[Array | np.ndarray], Callable]:
    """The arrays of at least SMALL values, then the values of all others in one; and what makes such a list a tree."""
    arrays, structure = jax.tree.flatten(tree)
    large = [array for array in arrays if array.size >= SMALL]
    small = [array for array in arrays if array.size < SMALL]
    vector, parts_of = ravel_pytree(small)

    def apart(pieces: list[Array]) -> PyTree[Array]:
        large_ones, small_ones = iter(pieces[:len(large)]), iter(parts_of(pieces[-1]) if small else [])
        return jax.tree.unflatten(structure, [next(small_ones if array.size < SMALL else large_ones)
                                              for array in arrays])

    return [*large, vector] if small else large, apart
