"""BatchNorm's statistics measured anew, for networks in which dropout comes before BatchNorm.

While such a network trains, dropout widens what BatchNorm sees, and the moving statistics learn that width; evaluation
drops nothing, so they no longer fit (Li et al. 2019, "Understanding the disharmony between dropout and batch
normalization by variance shift"). Measuring moments once more on training images, without dropout, mends it
(Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float, Int, PyTree, UInt8

from pcamjax.data.batches import eval_batches
from pcamjax.errors import InputError
from pcamjax.inference.predict import Run
from pcamjax.models import frozen_layers, model_spec
from pcamjax.models.layers import Dropout, Training

BATCH_SIZE = 128


def recalibrate(run: Run, images: UInt8[np.ndarray, "m 96 96 3"], indices: Int[np.ndarray, " n"], count: int) -> Run:
    """The same run with statistics measured on `count` of `images[indices]`, drawn with the run's seed.

    Each layer's are the mean over batches of 128 of the moments that it sees when the layers before it normalise by
    the moments of the batch: as in training, but for dropout and augmentation. Layers that were frozen keep theirs.

    Raises:
      InputError: `count` is not a multiple of 128, or larger than the number of patches; or the network has no
        BatchNorm that was trained.
    """
    frozen = frozen_layers(run.config.model.name, run.config.model.get("frozen", "none"))
    if not run.variables["batch_stats"].get("backbone", {}).keys() - frozen:
        raise InputError(f"{run.config.model.name} has no BatchNorm that was trained, so there is nothing to "
                         "recalibrate; leave --recalibrate out")
    if count % BATCH_SIZE or not BATCH_SIZE <= count <= len(indices):
        raise InputError(f"{count} patches to recalibrate on: expected a multiple of {BATCH_SIZE}, at most the "
                         f"{len(indices)} there are")
    network = model_spec(run.config.model.name).build(Training(batch_norm_momentum=0.0, frozen=frozen))

    @jax.jit
    def moments(x: Float[jax.Array, "b 96 96 3"]) -> PyTree:
        with nn.intercept_methods(_without_dropout):
            return network.apply(run.variables, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    rows = np.sort(np.random.default_rng(run.config.seed).choice(indices, count, replace=False))
    measured = [moments(run.preprocess(batch.images)) for batch in eval_batches(images, rows, batch_size=BATCH_SIZE)]
    statistics = jax.tree.map(lambda *batches: jnp.stack(batches).mean(0), *measured)
    return dataclasses.replace(run, variables={**run.variables, "batch_stats": statistics},
                               checkpoint=f"{run.checkpoint}, BatchNorm recalibrated on {count} training patches")


def _without_dropout(call: Any, arguments: tuple, options: dict, context: nn.module.InterceptorContext) -> Any:
    return arguments[0] if isinstance(context.module, Dropout) else call(*arguments, **options)
