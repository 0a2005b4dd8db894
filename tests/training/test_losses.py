"""What the losses mean, and that they stay finite where probabilities would be 0 or 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcamjax.errors import InputError
from pcamjax.training.losses import LOSSES, make_loss

ALL = [(name, activation) for name in LOSSES for activation in LOSSES[name]]
EXTREME = jnp.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-1e4, -1e4], [0, 1e4], [-1e4, 0]])


@pytest.mark.parametrize("name, activation", ALL)
@pytest.mark.parametrize("label", [0, 1])
def test_finite_with_finite_gradients(name, activation, label):
    loss = make_loss(name, activation)
    labels = jnp.full(len(EXTREME), label)
    values = loss(EXTREME, labels)
    gradients = jax.grad(lambda logits: loss(logits, labels).sum())(EXTREME)
    assert values.shape == (len(EXTREME),)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    assert (np.asarray(values) >= 0).all()


@pytest.mark.parametrize("name, activation", [each for each in ALL if each[0] != "mean_squared_error"])
def test_a_confident_mistake_still_learns(name, activation):
    """Keras clips here, and its gradient is zero."""
    loss = make_loss(name, activation)
    gradient = jax.grad(lambda logits: loss(logits, jnp.array([1])).sum())(jnp.array([[50.0, -50.0]]))
    assert gradient[0, 1] < -0.4


def test_softmax_binary_crossentropy_is_crossentropy():
    """Against the definition in float64: the mean over both outputs of -y log p - (1 - y) log(1 - p)."""
    logits = np.random.default_rng(2).normal(0, 3, (32, 2))
    labels = np.arange(32) % 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = np.eye(2)[labels]
    definition = (-y * np.log(p) - (1 - y) * np.log1p(-p)).mean(1)
    np.testing.assert_allclose(definition, -np.log(p[np.arange(32), labels]))
    ours = make_loss("binary_crossentropy", "softmax")(jnp.float32(logits), jnp.int32(labels))
    np.testing.assert_allclose(ours, definition, rtol=1e-5, atol=1e-6)


def test_class_weights_multiply_by_label():
    logits, labels = jnp.array([[0.3, -1], [2, 1.5], [0, 0]]), jnp.array([0, 1, 1], jnp.int8)
    plain = make_loss("binary_crossentropy", "sigmoid")(logits, labels)
    weighted = make_loss("binary_crossentropy", "sigmoid", (0.5, 3))(logits, labels)
    np.testing.assert_allclose(weighted, plain * np.array([0.5, 3, 3]), rtol=1e-6)


@pytest.mark.parametrize("arguments, words", [
    (("hinge", "softmax"), "loss 'hinge' is not known; known are binary_crossentropy, categorical"),
    (("binary_crossentropy", "relu"), "activation 'relu' is not known; known are softmax, sigmoid"),
    (("binary_crossentropy", "softmax", (1.0,)), "expected two numbers of at least 0"),
    (("binary_crossentropy", "softmax", (1.0, -2.0)), "expected two numbers of at least 0")])
def test_bad_names_and_weights(arguments, words):
    with pytest.raises(InputError, match=words):
        make_loss(*arguments)
