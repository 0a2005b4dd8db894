"""Keras on JAX as a subject of the benchmark."""

from collections.abc import Callable
from functools import partial

import jax
import keras
import numpy as np

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.peers.keras_networks import load_network


def make_train(material: Material) -> Callable[[], float]:
    """A function that takes one optimizer step and returns the loss when all of it is done."""
    model, loss = load_network(material), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(material.case.learning_rate)
    optimizer.build(model.trainable_variables)
    images, labels = (jax.device_put(material.array(name)) for name in ("inputs", "labels"))

    def mean_loss(trained, others):
        logits, others = model.stateless_call(trained, others, images, training=True)
        return loss(labels, logits), others

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(trained, others, slots):
        (value, others), gradients = jax.value_and_grad(mean_loss, has_aux=True)(trained, others)
        trained, slots = optimizer.stateless_apply(slots, gradients, trained)
        return value, (trained, others, slots)

    state = tuple([variable.value for variable in variables] for variables in (
        model.trainable_variables, model.non_trainable_variables, optimizer.variables))

    def train() -> float:
        nonlocal state
        value, state = jax.block_until_ready(step(*state))
        return float(value)

    return train


def make_infer(material: Material) -> Callable[[], np.ndarray]:
    """A function that computes the logits [B,2] of the batch."""
    model, images = load_network(material), jax.device_put(material.array("inputs"))
    state = tuple([variable.value for variable in variables] for variables in (
        model.trainable_variables, model.non_trainable_variables))
    forward = jax.jit(lambda state, images: model.stateless_call(*state, images, training=False)[0])
    return lambda: np.asarray(forward(state, images))
