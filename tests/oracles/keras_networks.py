"""Networks of Keras for the tests: in double precision, drawn at random, their variables as ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import keras
import numpy as np
from flax.traverse_util import unflatten_dict

from pcamjax.benchmark.peers.keras_networks import variable_paths


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Keras and JAX compute in `dtype`, "float32" or "float64"."""
    before = keras.config.floatx()
    keras.config.set_floatx(dtype)
    keras.utils.clear_session()  # it would go on with the old one
    try:
        with jax.enable_x64(dtype == "float64"):
            yield
    finally:
        keras.config.set_floatx(before)
        keras.utils.clear_session()


def draw(model: keras.Model, images: np.ndarray, seed: int) -> None:
    """Draws all variables of a model.

    The moving statistics are drawn around the moments that these images have at each layer, so that maps neither
    vanish nor grow through the depth, nor lose what tells places and images apart.
    """
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, role = variable.shape, variable.name
        if role == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif "kernel" in role:
            depthwise = len(shape) == 4 and shape[-1] == 1
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            variable.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
        elif role in ("bias", "beta"):
            variable.assign(rng.normal(0, 0.1, shape))
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + np.sqrt(variance) * rng.normal(0, 0.2, mean.shape))
        layer.moving_variance.assign((variance + 0.1) * rng.uniform(0.7, 2, variance.shape))
        layer.momentum = momentum


def as_variables(model: keras.Model, value: Callable[[keras.Variable], Any] = np.asarray) -> dict[str, Any]:
    """`value` of each variable of a network where ours have it, depthwise kernels in our axes."""
    return {"batch_stats": {}} | unflatten_dict({
        path: np.swapaxes(value(variable), 2, 3) if depthwise else value(variable)
        for path, variable, depthwise in variable_paths(model)})
