"""What a trained network makes of patches, before its own classifier reads it."""

import hashlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, PyTree, UInt8
from tqdm import tqdm

from pcamjax.data.batches import eval_batches
from pcamjax.inference.predict import Run
from pcamjax.models import model_input
from pcamjax.training.forward import images_together
from pcamjax.training.parallel import choose_devices, replicate, spread


def make_pooled_features(run: Run) -> Callable[[UInt8[np.ndarray, "m 96 96 3"], Int[np.ndarray, " n"]],
                                               Float32[np.ndarray, "n c"]]:
    """What gives the mean over positions of the feature map of each of `images[indices]`, with a progress bar.

    The thesis would put k-NN, SVM or forest in the place of the multilayer perceptron. So they read what that reads,
    the feature map, and not the last hidden layer, which is part of the perceptron and was trained until two logits
    could be read from it: any classifier of that comes near to repeating the network. The mean has as many numbers as
    the map has channels, for networks that flatten their map too, whose 4,608 or 8,192 values would be many for
    distances between patches. The network has seen the patches that it was trained on: there its features tell the
    classes apart better than anywhere else.
    """
    batch_size, parallel = run.config.eval_batch_size, run.config.parallel
    devices = choose_devices(parallel.devices, batch_size)
    batch_size = images_together(batch_size, devices)
    prepare = model_input(run.config.model.name, run.config.model.get("precision", "float32"))

    def pooled(variables: dict[str, PyTree], images: UInt8[Array, "b 96 96 3"]) -> Float[Array, "b c"]:
        feature_map = run.network.apply(variables, prepare(images.astype(jnp.float32)), method="features")
        return feature_map.astype(jnp.float32).mean((1, 2))

    compiled = spread(pooled, devices, parallel.wrapper, batch_output=True)
    variables = replicate(run.variables, devices)

    def pooled_features(images: UInt8[np.ndarray, "m 96 96 3"], indices: Int[np.ndarray, " n"]
                        ) -> Float32[np.ndarray, "n c"]:
        pieces = []
        with tqdm(total=len(indices), desc="features", unit=" images") as bar:
            for batch in eval_batches(images, indices, batch_size=batch_size):
                pieces.append(np.asarray(compiled(variables, batch.images))[batch.mask])
                bar.update(len(pieces[-1]))
        return np.concatenate(pieces)

    return pooled_features


def variables_sha256(run: Run) -> str:
    """The SHA-256 of a network's variables: it names what the features are computed with, wherever the run lies."""
    digest = hashlib.sha256()
    for path, value in jax.tree.leaves_with_path(run.variables):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(value).tobytes())
    return digest.hexdigest()
