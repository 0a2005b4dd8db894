"""The small arrays of a tree as one and back; an optimizer takes the same steps either way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pcamjax.training.joined import SMALL, joined
from pcamjax.training.optimizers import OPTIMIZERS, make_optimizer


def tree(seed, shapes):
    draw = np.random.default_rng(seed).standard_normal
    return {str(index): jnp.asarray(draw(shape), jnp.float32) for index, shape in enumerate(shapes)}


MIXED = [(3,), (SMALL,), (2, 5), (), (2, SMALL), (SMALL - 1,)]


@pytest.mark.parametrize(("shapes", "pieces"), [
    (MIXED, 3), ([(SMALL,), (1, SMALL)], 2), ([(2,), (3, 3)], 1), ([(0, 3)], 1), ([], 0)])
def test_apart_again_each_array_is_what_it_was(shapes, pieces):
    arrays, apart = joined(tree(0, shapes))
    assert len(arrays) == pieces
    assert sum(array.size for array in arrays) == sum(np.prod(shape, dtype=int) for shape in shapes)
    jax.tree.map(np.testing.assert_array_equal, apart(arrays), tree(0, shapes))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_takes_the_same_steps_and_keeps_fewer_arrays(name):
    ours = make_optimizer({"name": name, "schedule": {"name": "constant", "learning_rate": 0.01}}, total_steps=1)
    plain = OPTIMIZERS[name](optax.constant_schedule(0.01))
    states = [optimizer.init(tree(0, MIXED)) for optimizer in (ours, plain)]
    for seed in range(3):
        gradient = tree(seed + 1, MIXED)
        (found, states[0]), (expected, states[1]) = (optimizer.update(gradient, state) for optimizer, state
                                                     in zip((ours, plain), states, strict=True))
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6), found, expected)
    few, many = (len(jax.tree.leaves(state)) for state in states)
    assert few < many or many <= 1  # plain gradient descent keeps no array
