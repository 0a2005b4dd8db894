"""Keras as the judge of the losses, at logits moderate enough that it clips nothing."""

import jax
import numpy as np
import pytest

from pcamjax.training.losses import LOSSES, make_loss

keras = pytest.importorskip("keras")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", LOSSES)
def test_same_losses(name, activation):
    rng = np.random.default_rng(5)
    logits = rng.uniform(-6, 6, (64, 2)).astype(np.float32)
    labels = rng.integers(0, 2, 64).astype(np.int8)
    # As plain numbers: a tensor that an activation made remembers its logits, and Keras' losses on TensorFlow
    # then use these as logits of the activation they expect, a softmax's as those of two sigmoids.
    probabilities = np.asarray(getattr(keras.ops, activation)(logits))
    targets = labels if name.startswith("sparse") else np.eye(2, dtype=np.float32)[labels]
    expected = np.asarray(getattr(keras.losses, name)(targets, probabilities))
    assert expected.shape == (64,)
    # Keras takes log(1 - p) of a rounded p, which at p = 0.9975 costs it 3e-5 of the result.
    ours = jax.jit(make_loss(name, activation))(logits, labels)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
