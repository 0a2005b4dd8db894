"""Layers compute in the dtype of their input; parameters, statistics and logits are float32."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from pcamjax.errors import InputError
from pcamjax.models import create, layers, model_input
from pcamjax.models.graph import layer_path
from pcamjax.models.variables import variable_shapes

# Every kind of layer is in one of them.
NETWORKS = ["scratch1", "scratch3", "inception_v3", "xception", "mobilenet"]
KINDS = {kind for kind in vars(layers).values() if inspect.isclass(kind) and issubclass(kind, nn.Module)}


def watch(name: str, precision: str):
    """The dtypes of what a training network's layers put out, by path and class, and of its logits and statistics."""
    put_out, network = {}, create(name)

    def intercept(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if layer_path(context) and type(context.module) in KINDS:
            put_out[layer_path(context), type(context.module)] = output.dtype
        return output

    def forward(variables, pixels):
        return network.apply(variables, model_input(name, precision)(pixels), train=True, mutable=["batch_stats"],
                             rngs={"dropout": jax.random.key(0)})

    with nn.intercept_methods(intercept):
        results = jax.eval_shape(forward, variable_shapes(name), jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32))
    return put_out, {leaf.dtype for leaf in jax.tree.leaves(results)}


@pytest.fixture(scope="module")
def watched():
    return {name: watch(name, "bfloat16") for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_layers_but_the_logits_compute_in_bfloat16(watched, name):
    put_out, others = watched[name]
    wide = {path[-1] for (path, _), dtype in put_out.items() if dtype != jnp.bfloat16}
    assert wide == {"logits"} and others == {jnp.dtype("float32")}


def test_every_kind_of_layer_was_watched(watched):
    assert {kind for put_out, _ in watched.values() for _, kind in put_out} == KINDS


def test_an_unknown_precision_is_refused():
    with pytest.raises(InputError, match="config.model.precision = 'float16': choose one of float32, bfloat16"):
        model_input("scratch1", "float16")
