"""Maps of pixels, on functions whose attribution is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from pooled import MODULE, VARIABLES
from pooled import X as IMAGES

from pcamjax.errors import InputError
from pcamjax.explain.saliency import attributions, input_gradient, integrated_gradients, occlusion, smooth_grad
from pcamjax.explain.targets import target_score

WEIGHTS = jax.random.normal(jax.random.key(2), (24, 24, 3))
X = jax.random.normal(jax.random.key(3), (2, 24, 24, 3))


class Linear(nn.Module):
    """Logit 1 is a weighted sum of the pixels."""

    @nn.compact
    def __call__(self, x):
        return jnp.stack([jnp.zeros(len(x)), jnp.einsum("bhwc,hwc->b", x, WEIGHTS)], axis=1)


@pytest.mark.parametrize("method", [input_gradient, smooth_grad])
def test_the_gradient_of_a_weighted_sum_is_its_weights(method):
    expected = jnp.broadcast_to(jnp.abs(WEIGHTS).max(-1), (2, 24, 24))
    np.testing.assert_allclose(method(Linear(), {}, X, target=1), expected, rtol=1e-4, atol=1e-5)


def test_integrated_gradients_of_a_weighted_sum_are_what_each_pixel_adds():
    shares = (WEIGHTS[None] * (X - X.mean((1, 2), keepdims=True))).sum(-1)
    np.testing.assert_allclose(integrated_gradients(Linear(), {}, X, target="margin"), nn.relu(shares), rtol=1e-3,
                               atol=1e-4)


def test_integrated_gradients_add_up_to_the_change_of_the_score():
    plain = jnp.broadcast_to(IMAGES.mean((1, 2), keepdims=True), IMAGES.shape)
    change = [target_score(MODULE.apply(VARIABLES, x), "margin") for x in (IMAGES, plain)]
    total = attributions(MODULE, VARIABLES, IMAGES, target="margin").sum((1, 2, 3))
    assert np.abs(change[0] - change[1]).min() > 1e-3
    np.testing.assert_allclose(total, change[0] - change[1], rtol=0.02, atol=1e-4)


def test_smooth_grad_has_the_same_noise_for_an_image_in_any_batch():
    whole = smooth_grad(MODULE, VARIABLES, IMAGES, target=1)
    alone = smooth_grad(MODULE, VARIABLES, IMAGES[1:2], target=1)
    np.testing.assert_allclose(whole[1], alone[0], rtol=1e-4, atol=1e-6)
    other = smooth_grad(MODULE, VARIABLES, IMAGES, target=1, seed=1)
    assert np.abs(other - whole).max() > 1e-5


class Spot(nn.Module):
    """Logit 1 is the brightness of one pixel."""

    @nn.compact
    def __call__(self, x):
        return jnp.stack([jnp.zeros(len(x)), x[:, 10, 15].sum(-1)], axis=1)


def test_occlusion_is_the_mean_fall_under_the_squares_over_a_pixel():
    x = jnp.zeros((1, 24, 24, 3)).at[0, 10, 15].set(1.0)
    made = np.asarray(occlusion(Spot(), {}, x, target=1))[0]
    fall, expected, count = 3 * (1 - 1 / 576), np.zeros((24, 24)), np.zeros((24, 24))
    for row in range(0, 25, 8):
        for column in range(0, 25, 8):
            square = (slice(max(row - 8, 0), row + 8), slice(max(column - 8, 0), column + 8))
            covered = np.zeros((24, 24), bool)
            covered[square] = True
            expected[square] += fall * covered[10, 15]
            count[square] += 1
    np.testing.assert_allclose(made, expected / count, rtol=1e-5)
    assert made[10, 15] == made.max() == pytest.approx(fall, rel=1e-5) and made[0, 0] < made.max()


def test_occlusion_does_not_show_what_speaks_against_the_target():
    assert not occlusion(Spot(), {}, jnp.zeros((1, 24, 24, 3)).at[0, 10, 15].set(-1.0), target=1).any()


def test_a_layer_is_refused():
    with pytest.raises(InputError, match="layer 'conv1': this method looks at the pixels"):
        input_gradient(MODULE, VARIABLES, IMAGES, target=1, layer="conv1")
