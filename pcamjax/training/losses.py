"""The losses of the thesis, per example and from logits, for two softmax or two sigmoid outputs.

They equal Keras' losses of the activated outputs against one-hot labels, save that Keras clips probabilities
at 1e-7, which stops the gradient of a confident mistake. Formulas: appendix B of the thesis.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pcamjax.errors import InputError

Loss = Callable[[Float[Array, "b 2"], Int[Array, " b"]], Float[Array, " b"]]


def make_loss(name: str, activation: str, class_weights: Sequence[float | int] | None = None) -> Loss:
    """The loss of every example as a function of logits [B,2] and labels [B] (0 or 1).

    Args:
      name: one of LOSSES.
      activation: of the outputs, "softmax" or "sigmoid" (one of its own for each output).
      class_weights: factors of the examples with label 0 and 1; the batch mean still divides by the number of
        examples, as `class_weight` of Keras' `fit` has it.
    Raises:
      InputError: an unknown name or activation; class weights that are not two finite numbers of at least 0.
    """
    if name not in LOSSES:
        raise InputError(f"loss {name!r} is not known; known are {', '.join(LOSSES)}")
    if activation not in LOSSES[name]:
        known = ", ".join(LOSSES[name])
        raise InputError(f"output activation {activation!r} is not known; known are {known}")
    loss = LOSSES[name][activation]
    if not class_weights:
        return loss
    if len(class_weights) != 2 or not all(0 <= weight < math.inf for weight in class_weights):
        raise InputError(f"class weights {tuple(class_weights)}: expected two numbers of at least 0, "
                         "for label 0 and for label 1")
    return lambda logits, labels: loss(logits, labels) * jnp.array(class_weights, logits.dtype)[labels]


def _softmax_crossentropy(logits: Array, labels: Array) -> Array:
    """Binary and categorical cross-entropy are one for a softmax pair: as p0 = 1 - p1, both terms of the mean
    over the outputs, -log p_y and -log(1 - p_other), are -log p_y."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def _sigmoid_binary_crossentropy(logits: Array, labels: Array) -> Array:
    return optax.sigmoid_binary_cross_entropy(logits, jax.nn.one_hot(labels, 2)).mean(-1)


def _sigmoid_categorical_crossentropy(logits: Array, labels: Array) -> Array:
    """Keras divides the outputs by their sum first: -log(p_y / (p0 + p1)), whose logits are log p."""
    return _softmax_crossentropy(jax.nn.log_sigmoid(logits), labels)


def _softmax_squared_error(logits: Array, labels: Array) -> Array:
    return ((jax.nn.softmax(logits) - jax.nn.one_hot(labels, 2))**2).mean(-1)


def _sigmoid_squared_error(logits: Array, labels: Array) -> Array:
    return ((jax.nn.sigmoid(logits) - jax.nn.one_hot(labels, 2))**2).mean(-1)


_CATEGORICAL = {"softmax": _softmax_crossentropy, "sigmoid": _sigmoid_categorical_crossentropy}

# Labels are integers here, so that "sparse" makes no difference; both names of the thesis are kept.
LOSSES: dict[str, dict[str, Loss]] = {
    "binary_crossentropy": {"softmax": _softmax_crossentropy, "sigmoid": _sigmoid_binary_crossentropy},
    "categorical_crossentropy": _CATEGORICAL,
    "sparse_categorical_crossentropy": _CATEGORICAL,
    "mean_squared_error": {"softmax": _softmax_squared_error, "sigmoid": _sigmoid_squared_error},
}
