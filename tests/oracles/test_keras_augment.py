"""Keras as the judge of the warp: its `affine_transform` with the same maps and the same mirrored borders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pcamjax.data.augment import warp

keras = pytest.importorskip("keras")


def test_warp_equals_keras():
    rng = np.random.default_rng(11)
    images = rng.integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
    angle, magnification = rng.uniform(-np.pi / 2, np.pi / 2, 8), rng.uniform(0.8, 1.2, 8)
    cos, sin = np.cos(angle) / magnification, np.sin(angle) / magnification
    linear = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    offset = 47.5 - linear @ (47.5 + rng.uniform(-4, 4, (8, 2, 1)))
    ours = jax.jit(warp, static_argnums=2)(
        jnp.asarray(images), jnp.asarray(np.concatenate([linear, offset], 2), jnp.float32), 140.0)

    # Keras writes the map with x before y, as (a0, a1, a2, b0, b1, b2, 0, 0).
    rows = [np.concatenate([m[1, ::-1], o[1], m[0, ::-1], o[0], [0, 0]])
            for m, o in zip(linear, offset, strict=True)]
    expected = keras.ops.image.affine_transform(
        images.astype(np.float32), np.array(rows, np.float32), interpolation="bilinear", fill_mode="reflect")
    # Both work in float32 on white noise, where 4e-5 px are 0.01 grey levels.
    np.testing.assert_allclose(ours, expected, atol=0.03)
