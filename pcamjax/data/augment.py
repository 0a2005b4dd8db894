"""Random augmentation on the device: exact symmetries of the square, or one bilinear warp; the stain's variation."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8
from ml_collections import ConfigDict

from pcamjax.data.stain import vary_stain
from pcamjax.errors import InputError
from pcamjax.ops.warp import warp

OFF = {"symmetries": False, "flips": False, "rotation": 0.0, "zoom": 0.0, "shift": 0.0, "stain": 0.0}


def augment(images: UInt8[Array, "b h w 3"], keys: Key[Array, " b"],
            config: Mapping[str, Any] | ConfigDict) -> Float[Array, "b h w 3"]:
    """Augments each image with the draws of its own key, whatever batch or device it stands in.

    `config` is static (it decides what is traced) and holds any of these, off where absent:
      symmetries: bool, one of the eight symmetries of the square, uniformly; exact
      flips: bool, left-right and up-down, each with probability 1/2; exact
      rotation: degrees; the angle is uniform in +-rotation
      zoom: fraction; the magnification is uniform in 1 +- zoom, the aspect is kept
      shift: pixels; uniform in +-shift along each axis
      stain: fraction by which amounts of the stains vary, see `vary_stain`
    With rotation, zoom and shift all zero nothing is interpolated. Otherwise there is one bilinear warp about
    the centre, with borders mirrored as d c b a | a b c d | d c b a ("reflect" in SciPy and Keras).

    Args:
      images: values 0..255.
      keys: one random key per image, made from the image's global position.
    Returns:
      float32 in 0..255, not yet preprocessed.
    Raises:
      InputError: an unknown option or a value out of range; symmetries of images that are not square; ranges
        that could move the central third of the image, which bears the label, over a border.
    """
    size = images.shape[1:3]
    config = _checked(config, size)
    draws = jax.vmap(lambda key: jax.random.uniform(key, (5,)))(keys)
    count = 8 if config["symmetries"] else 4 if config["flips"] else 1
    symmetry = (draws[:, 0] * count).astype(jnp.int32)
    if config["rotation"] or config["zoom"] or config["shift"]:
        images = warp(images, _matrices(symmetry, draws[:, 1:], size, config), _reach(size, config))
    else:
        images = _turned(images, symmetry, count).astype(jnp.float32)
    if config["stain"]:
        amounts = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (6,)))(keys)
        images = vary_stain(images, amounts, config["stain"])
    return images


def _turned(images: Array, symmetry: Int[Array, " b"], count: int) -> Array:
    """Bit 2 of `symmetry` transposes, bit 1 then reverses the rows, bit 0 the columns: eight in all."""
    def where(bit: int, changed: Array, images: Array) -> Array:
        return jnp.where((symmetry >> bit & 1 == 1)[:, None, None, None], changed, images)

    if count == 8:
        images = where(2, images.transpose(0, 2, 1, 3), images)
    if count >= 4:
        images = where(1, images[:, ::-1], images)
        images = where(0, images[:, :, ::-1], images)
    return images


def _matrices(symmetry: Int[Array, " b"], draws: Float[Array, "b 4"], size: tuple[int, int],
              config: Mapping[str, Any]) -> Float[Array, "b 2 3"]:
    """The map from output to source, about the centre, from a symmetry and four draws in [0, 1) an image: the
    shift is taken back, then the symmetry, the rotation and the magnification."""
    signed = 2 * draws - 1
    angle = signed[:, 0] * math.radians(config["rotation"])
    magnification = 1 + signed[:, 1] * config["zoom"]
    shift = signed[:, 2:] * config["shift"]
    cos, sin = jnp.cos(angle) / magnification, jnp.sin(angle) / magnification
    linear = jnp.stack([jnp.stack([cos, -sin], 1), jnp.stack([sin, cos], 1)], 1)
    linear = jnp.where((symmetry >> 2 & 1 == 1)[:, None, None], linear[:, :, ::-1], linear)
    linear *= 1 - 2 * (symmetry[:, None, None] >> jnp.array([[[1, 0]]]) & 1)
    centre = jnp.array([[(side - 1) / 2 for side in size]])
    offset = centre - jnp.einsum("bij,bj->bi", linear, centre + shift, precision="highest")
    return jnp.concatenate([linear, offset[:, :, None]], 2)


def _reach(size: tuple[int, int], config: Mapping[str, Any]) -> float:
    radius = math.hypot(*size) / 2 + math.sqrt(2) * config["shift"]
    return radius / (1 - config["zoom"]) + max(size) / 2


def _checked(config: Mapping[str, Any] | ConfigDict, size: tuple[int, int]) -> dict[str, Any]:
    given = dict(config)
    for name in given.keys() - OFF.keys():
        raise InputError(f"augmentation option {name!r} is not known; known are {', '.join(OFF)}")
    config = OFF | given
    for name, limit in (("rotation", 180), ("zoom", 0.9), ("shift", min(size) / 3), ("stain", 0.9)):
        if not (isinstance(config[name], int | float) and 0 <= config[name] <= limit):
            raise InputError(f"augmentation {name} = {config[name]!r}: expected a number from 0 to {limit:g}")
    shape = f"{size[0]}x{size[1]}"
    if config["symmetries"] and size[0] != size[1]:
        raise InputError(f"augmentation symmetries: expected square images, these are {shape}; use flips")
    # Half the side of the upright square around the central third once turned and magnified.
    angle = math.radians(min(config["rotation"], 45))
    half = min(size) / 6 * (math.cos(angle) + math.sin(angle)) * (1 + config["zoom"])
    over = half + config["shift"] - min(size) / 2
    if over > 0:
        raise InputError(f"augmentation zoom {config['zoom']} with rotation {config['rotation']} and shift "
                         f"{config['shift']} could move the label-bearing centre {over:.1f} px out of a "
                         f"{shape} image; make them smaller")
    return config
