"""Random variation of H&E staining, as from laboratory to laboratory (Tellez et al. 2019, arXiv 1902.06543).

The optical densities of a pixel are taken apart into haematoxylin, eosin and a rest at right angles to both (Ruifrok
and Johnston 2001); the amount of each is changed; and the three are put together again.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pcamjax.data.synthetic import RUIFROK

HAEMATOXYLIN, EOSIN = RUIFROK
# Optical densities in R, G, B, of norm 1: haematoxylin, eosin and what is at right angles to both.
STAINS = np.array([HAEMATOXYLIN, EOSIN, np.cross(HAEMATOXYLIN, EOSIN)])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def vary_stain(images: Float[Array, "b h w 3"], draws: Float[Array, "b 6"], strength: float) -> Float[Array, "b h w 3"]:
    """Multiplies the amount of each of the three by 1 +- `strength` and adds +- `strength` / 10 optical densities.

    Args:
      images: values 0..255.
      draws: in [0, 1); of an image three for the factors, then three for the terms.
    Returns:
      float32 in 0..255.
    """
    basis = STAINS.astype(np.float32)
    signed = strength * (2 * draws - 1)
    # amounts = densities @ inverse; densities = amounts @ basis: both, with the factors between them, are one matrix.
    matrices = jnp.einsum("ij,bj,jk->bik", np.linalg.inv(basis), 1 + signed[:, :3], basis, precision="highest")
    terms = jnp.einsum("bj,jk->bk", signed[:, 3:] / 10 * math.log(10), basis, precision="highest")
    densities = -jnp.log((images + 1) / 256)  # times log 10, as are the terms
    densities = jnp.einsum("bhwi,bik->bhwk", densities, matrices, precision="highest") + terms[:, None, None, :]
    return jnp.clip(256 * jnp.exp(-densities) - 1, 0, 255)
