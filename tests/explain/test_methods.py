"""Targets, and what is done to raw maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pooled import FEATURES, MODULE, VARIABLES, X

from pcamjax.errors import InputError
from pcamjax.explain.cams import grad_cam
from pcamjax.explain.methods import explain, normalise, upsample
from pcamjax.explain.targets import target_score

LOGITS = jnp.array([[1.0, 3.0], [0.5, -2.0]])


@pytest.mark.parametrize(("target", "expected"), [
    (0, [1, 0.5]), (1, [3, -2]), ("margin", [2, -2.5]), ("probability", [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2.5))]),
    (lambda logits: logits.sum(1), [4, -1.5])])
def test_targets(target, expected):
    np.testing.assert_allclose(target_score(LOGITS, target), expected, rtol=1e-6)


@pytest.mark.parametrize("target", [2, -1, "metastasis"])
def test_unknown_targets(target):
    with pytest.raises(InputError, match="expected a class from 0 to 1, 'margin' or 'probability' or a function"):
        target_score(LOGITS, target)


@pytest.mark.parametrize("target", [1, "margin", "probability"])
def test_a_single_output_is_not_taken_for_two(target):
    with pytest.raises(InputError, match="expected a class from 0 to 0|of 1 outputs: expected two"):
        target_score(LOGITS[:, :1], target)


def test_what_two_sigmoids_decide_by_is_their_difference():
    """A channel that raises both logits alike explains the logit of metastasis, and not the decision."""
    both = {"params": VARIABLES["params"] | {"logits": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}}
    peaks = {target: explain(MODULE, both, X, target=target)[1] for target in (1, "margin", "probability")}
    assert (peaks[1] > 0).any() and (FEATURES.sum(-1) > 0).any()
    assert not peaks["margin"].any() and not peaks["probability"].any()


def test_upsample_keeps_cells_where_they_are():
    maps = jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
    large = upsample(maps, (96, 96))
    assert large.shape == (1, 96, 96)
    # The cell covers rows 24 to 47 and columns 48 to 71; at its edge the value is half that of its middle.
    rows, columns = (np.asarray(large[0].sum(axis)) @ np.arange(96) / large.sum() for axis in (1, 0))
    np.testing.assert_allclose([rows, columns], [35.5, 59.5], atol=1e-3)
    np.testing.assert_allclose(large[0, 35:37, 47:49].mean(), 0.5 * 23.5 / 24, rtol=1e-5)
    np.testing.assert_array_equal(upsample(jnp.full((2, 1, 1), 3.0), (96, 48)), jnp.full((2, 96, 48), 3.0))


def test_normalise_never_stretches_nothing():
    maps = jnp.stack([jnp.zeros((2, 2)), jnp.array([[0.0, 1e-6], [2e-6, 4e-6]])])
    normal, peaks = normalise(maps)
    np.testing.assert_allclose(peaks, [0, 4e-6], rtol=1e-6)
    np.testing.assert_allclose(normal, [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]], rtol=1e-6)


def test_several_layers_are_averaged_each_from_0_to_1():
    run = {layers: jax.jit(partial(explain, MODULE, target=1, layers=layers))(VARIABLES, X)[0]
           for layers in (("conv1",), ("conv1", "conv2"))}
    raw = [grad_cam(MODULE, VARIABLES, X, target=1, layer=layer) for layer in ("conv1", "conv2")]
    mean = sum(upsample(normalise(maps)[0], X.shape[1:3]) for maps in raw) / 2
    np.testing.assert_allclose(run["conv1", "conv2"], normalise(mean)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run["conv1",], normalise(upsample(raw[0], X.shape[1:3]))[0], rtol=1e-4, atol=1e-5)


def test_an_unknown_method_and_a_layer_for_pixels_are_refused():
    with pytest.raises(InputError, match="method 'gradcam': choose one of grad_cam, "):
        explain(MODULE, VARIABLES, X, method="gradcam")
