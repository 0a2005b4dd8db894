"""Grad-CAM on a network small enough to know the answer: convolutions, average pooling, one dense layer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from pcamjax.errors import InputError
from pcamjax.explain.gradcam import grad_cam, normalise, upsample


class Net(nn.Module):
    """With global average pooling the gradient of a logit is the dense kernel / (h * w), everywhere."""

    def setup(self):
        self.conv1 = nn.Conv(5, (3, 3), padding="VALID")
        self.conv2 = nn.Conv(4, (3, 3), padding="VALID")
        self.logits = nn.Dense(2)

    def features(self, x, *, train=False):
        return self.conv2(nn.relu(self.conv1(x)))

    def head(self, f, *, train=False):
        return self.logits(f.mean((1, 2)))

    def __call__(self, x, *, train=False):
        return self.head(self.features(x))


MODULE = Net()
X = jax.random.normal(jax.random.key(0), (3, 12, 10, 3))
VARIABLES = jax.jit(MODULE.init)(jax.random.key(1), X)
FEATURES = MODULE.apply(VARIABLES, X, method="features")
KERNEL = VARIABLES["params"]["logits"]["kernel"]


@pytest.mark.parametrize("target, weights", [
    (0, KERNEL[:, 0]), (1, KERNEL[:, 1]), ("margin", KERNEL[:, 1] - KERNEL[:, 0]),
    (lambda logits: -logits[:, 1], -KERNEL[:, 1])], ids=["healthy", "metastasis", "margin", "function"])
@pytest.mark.parametrize("layer", [None, "conv2"])
def test_weights_are_those_of_the_dense_layer(target, weights, layer):
    expected = np.maximum(FEATURES @ weights, 0) / (8 * 6)
    maps = grad_cam(MODULE, VARIABLES, X, target=target, layer=layer)
    assert maps.shape == (3, 8, 6) and maps.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-7)


def test_an_earlier_layer():
    def after(a):
        return MODULE.apply(VARIABLES, a, method=lambda m, a: m.head(m.conv2(nn.relu(a))))[:, 1].sum()

    a = MODULE.apply(VARIABLES, X, method=lambda m, x: m.conv1(x))
    weights = jax.grad(after)(a).mean((1, 2))
    expected = np.maximum(np.einsum("bhwc,bc->bhw", a, weights), 0)
    maps = grad_cam(MODULE, VARIABLES, X, target=1, layer="conv1")
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layer", [None, "conv1"])
def test_jitted_and_each_image_for_itself(layer):
    run = jax.jit(partial(grad_cam, MODULE, target="margin", layer=layer))
    whole = run(VARIABLES, X)
    alone = [run(VARIABLES, X[i:i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(whole, np.stack(alone), rtol=1e-5, atol=1e-7)


def test_upsample_keeps_cells_where_they_are():
    maps = jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
    large = upsample(maps, 96)
    assert large.shape == (1, 96, 96)
    # The cell covers rows 24 to 47 and columns 48 to 71; at its edge the value is half that of its middle.
    rows, columns = (np.asarray(large[0].sum(axis)) @ np.arange(96) / large.sum() for axis in (1, 0))
    np.testing.assert_allclose([rows, columns], [35.5, 59.5], atol=1e-3)
    np.testing.assert_allclose(large[0, 35:37, 47:49].mean(), 0.5 * 23.5 / 24, rtol=1e-5)
    np.testing.assert_array_equal(upsample(jnp.full((2, 1, 1), 3.0), 96), jnp.full((2, 96, 96), 3.0))


def test_normalise_never_stretches_nothing():
    maps = jnp.stack([jnp.zeros((2, 2)), jnp.array([[0.0, 1e-6], [2e-6, 4e-6]])])
    normal, is_zero = normalise(maps)
    np.testing.assert_array_equal(is_zero, [True, False])
    np.testing.assert_allclose(normal, [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]], rtol=1e-6)


@pytest.mark.parametrize("target", [2, -1, "metastasis"])
def test_unknown_targets(target):
    with pytest.raises(InputError, match="expected a class from 0 to 1, 'margin' or a function"):
        grad_cam(MODULE, VARIABLES, X, target=target)


def test_layers_without_maps():
    with pytest.raises(InputError, match="'logits' puts out shape"):
        grad_cam(MODULE, VARIABLES, X, target=1, layer="logits")
