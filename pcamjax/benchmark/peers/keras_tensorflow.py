"""Keras on TensorFlow as a subject of the benchmark."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.peers.keras_networks import load_network


def make_train(material: Material, jit_compile: bool = False) -> Callable[[], float]:
    """A function that takes one optimizer step and returns the loss when all of it is done."""
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

    return lambda: float(step(*batch))


def make_infer(material: Material, jit_compile: bool = False) -> Callable[[], np.ndarray]:
    """A function that computes the logits [B,2] of the batch.

    The variables are made constants, so that TensorFlow folds BatchNorm into convolutions: 1.0 to 1.2 times as fast as
    `model.predict_on_batch`.
    """
    model, images = load_network(material), tf.constant(material.array("inputs"))
    forward = tf.function(lambda images: model(images, training=False), jit_compile=jit_compile)
    if not jit_compile:
        forward = convert_variables_to_constants_v2(forward.get_concrete_function(images))
        return lambda: forward(images)[0].numpy()
    return lambda: forward(images).numpy()
