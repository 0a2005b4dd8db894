"""Keras on TensorFlow as a subject of the benchmark."""

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.memory import peak_memory
from pcamjax.benchmark.peers.keras_networks import load_network
from pcamjax.benchmark.subjects import Work


def make_train(material: Material, jit_compile: bool = False) -> Work:
    """One optimizer step, by a function of our own: as fast as Keras' `train_function` (0.98 to 1.05 times)."""
    model, loss = load_network(material), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(material.case.learning_rate)
    optimizer.build(model.trainable_variables)
    batch = tf.constant(material.array("inputs")), tf.constant(material.array("labels"))

    @tf.function(jit_compile=jit_compile)
    def step(images, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    return Work(lambda: float(step(*batch)), peak_bytes=_peak_bytes)


def make_infer(material: Material, jit_compile: bool = False) -> Work:
    """The logits [B,2] of the batch.

    The variables are made constants, so that TensorFlow folds BatchNorm into convolutions: 1.0 to 1.2 times as fast as
    `model.predict_on_batch`.
    """
    model, images = load_network(material), tf.constant(material.array("inputs"))
    forward = tf.function(lambda images: model(images, training=False), jit_compile=jit_compile)
    if jit_compile:
        return Work(lambda: forward(images).numpy(), peak_bytes=_peak_bytes)
    constant = convert_variables_to_constants_v2(forward.get_concrete_function(images))

    def run() -> np.ndarray:
        (logits,) = constant(images)
        return logits.numpy()

    return Work(run, peak_bytes=_peak_bytes)


def _peak_bytes() -> int:
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return peak_memory()
