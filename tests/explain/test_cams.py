"""Class activation maps: a network whose answer is known, what pytorch-grad-cam draws, and each method's own law."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from golden_maps import CASES, FILE, SIZE, TARGETS, images, parameters
from golden_maps import Net as GoldenNet
from pooled import FEATURES, KERNEL, MODULE, VARIABLES, Net, X

from pcamjax.errors import InputError
from pcamjax.explain.cams import ablation_cam, eigen_cam, grad_cam, hires_cam, layer_cam, score_cam, xgrad_cam
from pcamjax.explain.methods import METHODS, explain, upsample


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


def test_layers_without_maps():
    with pytest.raises(InputError, match="'logits' puts out shape"):
        grad_cam(MODULE, VARIABLES, X, target=1, layer="logits")


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as file:
        return dict(file)


def test_the_golden_network_is_the_same_here(golden):
    logits = GoldenNet().apply({"params": parameters()}, images())
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=1e-5)
    assert (golden["logits"] > 0.5).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "xgrad_cam",
                                    "score_cam", "ablation_cam"])
def test_the_maps_are_those_of_pytorch_grad_cam(golden, method, target, case):
    """Which stretches each map from its least value to its largest, where ours go from 0: here ours are stretched."""
    expected = golden[f"{method} {case} {target}"]
    run = jax.jit(METHODS[method], static_argnums=0, static_argnames=("target", "layer"))
    raw = [run(GoldenNet(), {"params": parameters()}, images(), target=TARGETS[target], layer=layer)
           for layer in CASES[case]]
    large = [upsample(stretched(maps), (SIZE, SIZE)) for maps in raw]
    assert expected.max() > 0.99
    np.testing.assert_allclose(stretched(sum(large) / len(large)), expected, atol=1e-4)


def stretched(maps: jax.Array) -> jax.Array:
    maps = maps - maps.min((1, 2), keepdims=True)
    return maps / (1e-7 + maps.max((1, 2), keepdims=True))


@pytest.mark.parametrize("case", ["block1", "block2"])
def test_eigen_cam_is_that_of_pytorch_grad_cam_but_for_its_sign(golden, case):
    made = np.asarray(eigen_cam(GoldenNet(), {"params": parameters()}, images(), layer=case))
    component = golden[f"eigen_cam {case}"]
    for ours, theirs in zip(made, component, strict=True):
        fits = [np.abs(ours - np.maximum(sign * theirs, 0)).max() < 1e-4 * np.abs(theirs).max() for sign in (1, -1)]
        assert any(fits)


def test_eigen_cam_has_the_sign_of_the_sum_of_channels():
    """Of one pattern in all channels it is the pattern's bright part, though most channels show it turned dark."""
    module, bright = Given(), np.zeros((1, 4, 4, 1), np.float32)
    bright[0, 1, 2] = 3
    for signs in ([5, -1, -1, -1], [1, 1, 1, -0.5]):
        made = eigen_cam(module, {}, jnp.asarray(bright * np.float32(signs)))
        assert np.unravel_index(np.argmax(made[0]), (4, 4)) == (1, 2)
    made = eigen_cam(module, {}, jnp.asarray(-bright * np.float32([5, -1, -1, -1])))
    assert made[0, 1, 2] == 0 < made.max()


class Given(nn.Module):
    """Its feature map is what it is given."""

    def features(self, x, *, train=False):
        return x


def test_the_mean_of_hires_cam_before_its_cut_is_grad_cams_for_a_pooling_network():
    """With gradients that are the same everywhere HiResCAM, Grad-CAM and XGrad-CAM are one (Draelos & Carin)."""
    expected = grad_cam(MODULE, VARIABLES, X, target=1)
    for method in (hires_cam, xgrad_cam):
        np.testing.assert_allclose(method(MODULE, VARIABLES, X, target=1), expected, rtol=1e-3, atol=1e-6)
    positive = nn.relu(FEATURES @ nn.relu(KERNEL[:, 1])) / 48
    np.testing.assert_allclose(layer_cam(MODULE, VARIABLES, X, target=1), positive, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", [0, 1, lambda logits: logits[:, 1] - 100])
def test_ablation_cam_weighs_by_the_fall_whatever_the_scores_sign(target):
    """Of a linear classifier the fall is the channel's share of the score; a constant changes only its size."""
    kernel = KERNEL[:, 1 if callable(target) else target]
    scores = MODULE.apply(VARIABLES, X)
    score = target(scores) if callable(target) else scores[:, target]
    weights = FEATURES.mean((1, 2)) * kernel[None] / np.abs(score)[:, None]
    expected = np.maximum(np.einsum("bhwc,bc->bhw", FEATURES, weights), 0)
    np.testing.assert_allclose(ablation_cam(MODULE, VARIABLES, X, target=target), expected, rtol=1e-3, atol=1e-6)


def test_score_cams_weights_sum_to_one():
    """So that maps which are the same in all channels come back as they are."""
    module = Same()
    variables = module.init(jax.random.key(0), X)
    np.testing.assert_allclose(score_cam(module, variables, X, target=1), module.apply(variables, X, method="features"
                                                                                       )[..., 0], rtol=1e-5)


class Same(Net):
    def features(self, x, *, train=False):
        return jnp.repeat(nn.sigmoid(self.conv1(x)[..., :1]), 4, axis=-1)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_jitted_gives_each_image_its_own_map_at_its_size(method):
    run = jax.jit(partial(explain, MODULE, method=method, target="margin"))
    maps, peaks = run(VARIABLES, X)
    assert maps.shape == X.shape[:3] and peaks.shape == (3,)
    assert (maps >= 0).all() and np.isfinite(maps).all()
    np.testing.assert_allclose(maps.max((1, 2)), peaks > 0, rtol=1e-6)
    alone = [run(VARIABLES, X[i:i + 1]) for i in range(3)]
    np.testing.assert_allclose(maps, np.concatenate([one for one, _ in alone]), rtol=1e-3, atol=1e-4)
