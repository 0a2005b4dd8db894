"""The variation of stains against the formula, done pixel by pixel in double precision."""

import jax
import jax.numpy as jnp
import numpy as np

from pcamjax.data.augment import augment
from pcamjax.data.stain import EOSIN, HAEMATOXYLIN, vary_stain

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3)).astype(np.float32)
DRAWS = np.random.default_rng(1).random((4, 6)).astype(np.float32)


def test_the_middle_draw_changes_nothing():
    same = vary_stain(jnp.asarray(IMAGES), jnp.full((4, 6), 0.5), 0.5)
    np.testing.assert_allclose(np.asarray(same), IMAGES, atol=2e-3)


def test_amounts_are_multiplied_and_shifted():
    strength = 0.4
    varied = np.asarray(vary_stain(jnp.asarray(IMAGES), jnp.asarray(DRAWS), strength))
    stains = [np.array(stain, float) / np.linalg.norm(stain)
              for stain in (HAEMATOXYLIN, EOSIN, np.cross(HAEMATOXYLIN, EOSIN))]
    for image, draw, ours in zip(IMAGES.astype(float), DRAWS.astype(float), varied, strict=True):
        for pixel, value in zip(image.reshape(-1, 3), ours.reshape(-1, 3), strict=True):
            amounts = np.linalg.solve(np.array(stains).T, -np.log10((pixel + 1) / 256))
            amounts = amounts * (1 + strength * (2 * draw[:3] - 1)) + strength / 10 * (2 * draw[3:] - 1)
            density = sum(amount * stain for amount, stain in zip(amounts, stains, strict=True))
            np.testing.assert_allclose(value, np.clip(256 * 10**-density - 1, 0, 255), atol=0.02)


def test_augment_varies_each_image_by_its_own_key_and_leaves_the_geometry_alone():
    images = jnp.asarray(np.random.default_rng(2).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.array([5, 6, 5]))
    plain, stained = (np.asarray(augment(images[:1].repeat(3, 0), keys, {"symmetries": True, "stain": stain}))
                      for stain in (0.0, 0.3))
    assert (stained[0] == stained[2]).all() and not (stained[0] == stained[1]).all()
    # A pixel's new colour hangs on its old one alone: where two pixels were equal, they still are.
    colours = {}
    for before, after in zip(plain[0].reshape(-1, 3), stained[0].reshape(-1, 3), strict=True):
        np.testing.assert_allclose(after, colours.setdefault(tuple(before), after), atol=1e-3)
    assert len(colours) > 1000
