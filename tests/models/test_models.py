import jax
import jax.numpy as jnp
import pytest

from pcamjax.errors import InputError
from pcamjax.models import MODELS, create

# All parameters, and those that are trained, as the thesis gives them.
PUBLISHED = {"scratch1": (4_549_538, 4_548_642), "scratch2": (34_403_106, 34_362_786),
             "scratch3": (35_172_066, 35_129_826)}
SCRATCH = list(PUBLISHED)
MAPS = {"scratch1": (8, 8, 128), "scratch2": (3, 3, 4096), "scratch3": (3, 3, 4096)}


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(name: str):
    return jax.eval_shape(create(name).init, jax.random.key(0), jnp.zeros((2, 96, 96, 3)))


@pytest.mark.parametrize("name", SCRATCH)
def test_parameters_are_as_published(name):
    variables = shapes(name)
    trainable = size(variables["params"])
    assert (trainable + size(variables["batch_stats"]), trainable) == PUBLISHED[name] == MODELS[name].parameters


@pytest.mark.parametrize("name", SCRATCH)
def test_feature_map_and_logits_have_their_shapes(name):
    network = create(name)
    images = jnp.zeros((2, 96, 96, 3))
    features = jax.eval_shape(lambda v: network.apply(v, images, method="features"), shapes(name))
    assert features.shape == (2, *MAPS[name])
    assert jax.eval_shape(lambda v: network.apply(v, images), shapes(name)).shape == (2, 2)


def test_an_unknown_network_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match="scratch9.*scratch1, scratch2, scratch3"):
        create("scratch9")
