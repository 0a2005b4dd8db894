"""Keras on JAX as a subject of the benchmark."""

from functools import partial

import jax
import keras
import numpy as np

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.memory import peak_memory
from pcamjax.benchmark.peers.keras_networks import load_network
from pcamjax.benchmark.subjects import Work


def make_train(material: Material) -> Work:
    """One optimizer step."""
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

    def run() -> float:
        nonlocal state
        value, state = jax.block_until_ready(step(*state))
        return float(value)

    return Work(run, peak_bytes=_peak_bytes)


def make_infer(material: Material) -> Work:
    """The logits [B,2] of the batch."""
    model, images = load_network(material), jax.device_put(material.array("inputs"))
    state = tuple([variable.value for variable in variables] for variables in (
        model.trainable_variables, model.non_trainable_variables))
    forward = jax.jit(lambda state, images: model.stateless_call(*state, images, training=False)[0])
    return Work(lambda: np.asarray(forward(state, images)), peak_bytes=_peak_bytes)


def _peak_bytes() -> int:
    device = jax.devices()[0]
    return peak_memory() if device.platform == "cpu" else device.memory_stats()["peak_bytes_in_use"]
