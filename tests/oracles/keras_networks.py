"""Keras' own six networks under the thesis' classifier, drawn at random, and their variables in our order."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import keras
import numpy as np
from flax.traverse_util import unflatten_dict

# The classes of keras.applications, and the modules that hold their `preprocess_input`.
FAMILIES = {"vgg19": ("VGG19", "vgg19"), "inception_v3": ("InceptionV3", "inception_v3"),
            "resnet50": ("ResNet50", "resnet50"), "xception": ("Xception", "xception"),
            "densenet201": ("DenseNet201", "densenet"), "mobilenet": ("MobileNet", "mobilenet")}
HEAD = ("dense1", "dense2", "logits")
ROLES = {"gamma": ("params", "scale"), "beta": ("params", "bias"),
         "moving_mean": ("batch_stats", "mean"), "moving_variance": ("batch_stats", "var")}


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


def keras_base(name: str, size: int, **options: Any) -> keras.Model:
    """Keras' network without its classifier for images of `size`, its layers numbered from the start."""
    keras.utils.clear_session()
    build = getattr(keras.applications, FAMILIES[name][0])
    return build(**{"weights": None, "include_top": False, "input_shape": (size, size, 3)} | options)


def fine_tuned(base: keras.Model, flatten: bool) -> keras.Model:
    """The thesis' classifier on `base`, without dropout: the logits of an image."""
    x = (keras.layers.Flatten() if flatten else keras.layers.GlobalAveragePooling2D())(base.output)
    for name, units in zip(HEAD, (1024, 512, 2), strict=True):
        x = keras.layers.Dense(units, None if name == "logits" else "relu", name=name)(x)
    return keras.Model(base.input, x)


def draw(model: keras.Model, images: np.ndarray, seed: int) -> keras.Model:
    """Draws all variables; returns the model.

    The moving statistics are drawn around the moments of these images at each layer, so that activations neither
    vanish nor grow through the depth, nor lose what tells places and images apart.
    """
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, role = variable.shape, variable.name
        if role == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif "kernel" in role:
            fan_in = np.prod(shape[:2] if _is_depthwise(variable) else shape[:-1])
            variable.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
        else:
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
    return model


def _is_depthwise(variable: keras.Variable) -> bool:
    return len(variable.shape) == 4 and variable.shape[-1] == 1


def as_variables(model: keras.Model, value: Callable[[keras.Variable], Any] = np.asarray) -> dict[str, Any]:
    """`value` of each of the model's variables where ours have it, depthwise kernels transposed as ours are."""
    tree: dict[tuple[str, ...], Any] = {}
    for layer in model.layers:
        for variable in layer.weights:
            array = value(variable)
            collection, role = ROLES.get(variable.name, ("params", variable.name))
            place = ("classifier", "hidden") if layer.name in HEAD else ("backbone",)
            if _is_depthwise(variable):
                array, role = np.swapaxes(array, 2, 3), "depthwise_kernel"
            tree[collection, *place, layer.name, role] = array
    return {"batch_stats": {}} | unflatten_dict(tree)
