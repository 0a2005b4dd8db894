"""The small arrays of a tree as one: a program pays for each by an argument, a loop and a meeting of its devices."""

from collections.abc import Callable

import jax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

SMALL = 2**14  # values of an array; to copy as many takes no longer than to handle another array


def joined(tree: PyTree[Array]) -> tuple[list[Array], Callable[[list[Array]], PyTree[Array]]]:
    """The arrays of at least SMALL values, then the values of all others in one; and what makes such a list a tree."""
    arrays, structure = jax.tree.flatten(tree)
    large = [array for array in arrays if array.size >= SMALL]
    vector, parts = ravel_pytree([array for array in arrays if array.size < SMALL])

    def apart(pieces: list[Array]) -> PyTree[Array]:
        some, others = iter(pieces[:len(large)]), iter(parts(pieces[-1]) if vector.size else [])
        return jax.tree.unflatten(structure, [next(others if array.size < SMALL else some) for array in arrays])

    return [*large, vector] if vector.size else large, apart
