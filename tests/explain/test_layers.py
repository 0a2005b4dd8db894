"""Layers reached by name in a small network, and in one whose layers nest and share names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pcamjax.errors import InputError
from pcamjax.explain.layers import apply_with_layer, layer_names, split_at


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x):
        inner = nn.BatchNorm(use_running_average=True)
        nn.share_scope(self, inner)
        return inner(x)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), padding="VALID", name="conv")(x)
        return nn.relu(Normalised(name="bn")(x))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = Block(name="block1")(x)
        twice = nn.Conv(4, (1, 1), name="twice")
        x = Block(name="block2")(twice(twice(x)))
        return nn.Dense(2, name="logits")(x.mean((1, 2)))


@pytest.fixture(scope="module")
def network():
    x = jax.random.normal(jax.random.key(0), (3, 12, 12, 3))
    return Net(), jax.jit(Net().init)(jax.random.key(1), x), x


def test_names_with_shapes_in_the_order_of_the_computation(network):
    module, variables, x = network
    assert layer_names(module, variables, x.shape) == {
        "block1/conv": (3, 10, 10, 4), "block1/bn": (3, 10, 10, 4), "block1": (3, 10, 10, 4),
        "block2/conv": (3, 8, 8, 4), "block2/bn": (3, 8, 8, 4), "block2": (3, 8, 8, 4), "logits": (3, 2)}


def test_reads_what_the_layer_puts_out(network):
    module, variables, x = network
    logits, output = apply_with_layer(module, variables, x, "block1/conv")
    conv = nn.Conv(4, (3, 3), padding="VALID").apply({"params": variables["params"]["block1"]["conv"]}, x)
    np.testing.assert_allclose(output, conv, rtol=1e-6)
    np.testing.assert_array_equal(logits, module.apply(variables, x))


def test_puts_another_output_in_a_layers_place(network):
    module, variables, x = network
    logits, output = apply_with_layer(module, variables, x, "block2")
    delta = jax.random.normal(jax.random.key(2), output.shape)
    moved, after = apply_with_layer(module, variables, x, "block2", output + delta)
    np.testing.assert_array_equal(after, output + delta)
    step = delta.mean((1, 2)) @ variables["params"]["logits"]["kernel"]
    np.testing.assert_allclose(moved - logits, step, rtol=1e-4, atol=1e-6)


def test_replaces_the_output_of_a_layer_that_shares_its_scope(network):
    module, variables, x = network
    _, output = apply_with_layer(module, variables, x, "block1/bn")
    delta = jax.random.normal(jax.random.key(2), output.shape)
    moved, after = apply_with_layer(module, variables, x, "block1/bn", output + delta)
    np.testing.assert_array_equal(after, output + delta)
    # The ReLU behind it sees the sum, and nothing else changes.
    equal, _ = apply_with_layer(module, variables, x, "block1", nn.relu(output + delta))
    np.testing.assert_allclose(moved, equal, atol=1e-5)


@pytest.mark.parametrize("layer, words", [
    ("blok2", "there is no layer 'blok2'; choose one of block2, block1"),
    ("conv", "'conv' names 2 layers; choose one of block"), ("twice", "there is no layer 'twice'")])
def test_names_that_lead_nowhere(network, layer, words):
    module, variables, x = network
    with pytest.raises(InputError, match=words):
        apply_with_layer(module, variables, x, layer)


@pytest.mark.parametrize("layer", ["block1/conv", "block2"])
def test_a_network_split_at_a_layer_is_the_network(network, layer):
    module, variables, x = network
    maps, rest = split_at(module, variables, x, layer)
    np.testing.assert_array_equal(maps, apply_with_layer(module, variables, x, layer)[1])
    np.testing.assert_allclose(rest(maps), module.apply(variables, x), rtol=1e-6)
    score = jax.jit(lambda maps: rest(maps)[:, 1].sum())
    direction = jax.random.normal(jax.random.key(3), maps.shape)
    slope = jnp.vdot(jax.grad(score)(maps), direction)
    difference = score(maps + 1e-2 * direction) - score(maps - 1e-2 * direction)
    np.testing.assert_allclose(difference / 2e-2, slope, rtol=0.02)
