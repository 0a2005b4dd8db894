"""Keras' own six networks, under the thesis' or ImageNet's classifier, drawn at random; their variables as ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import keras
import numpy as np
from flax.traverse_util import unflatten_dict

# Classes of keras.applications.
CLASSES = {"vgg19": "VGG19", "inception_v3": "InceptionV3", "resnet50": "ResNet50", "xception": "Xception",
           "densenet201": "DenseNet201", "mobilenet": "MobileNet"}
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


def keras_network(name: str, size: int, **options: Any) -> keras.Model:
    """Keras' network for images of `size`, by default without a classifier, its layers numbered from the start."""
    keras.utils.clear_session()
    family, _, alpha = name.partition("_0")  # mobilenet_025, but inception_v3
    if alpha:
        name, options = family, options | {"alpha": int(alpha) / 100}
    options = {"weights": None, "include_top": False, "input_shape": (size, size, 3)} | options
    return getattr(keras.applications, CLASSES[name])(**options)


def fine_tuned(base: keras.Model) -> keras.Model:
    """The thesis' classifier on `base`, without dropout: the logits of an image."""
    if base.name == "vgg19":
        x = keras.layers.Flatten(name="flatten")(base.output)
    else:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(base.output)
    for i, units in enumerate((1024, 512), start=1):
        x = keras.layers.Dense(units, "relu", name=f"dense{i}")(x)
    return keras.Model(base.input, keras.layers.Dense(2, name="logits")(x))


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
            fan_in = np.prod(shape[:2] if _is_depthwise(variable) else shape[:-1])
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
    """`value` of each variable of a `fine_tuned` model where ours have it, depthwise kernels in our axes."""
    tree: dict[tuple[str, ...], Any] = {}
    for layer in model.layers:
        for variable in layer.weights:
            array = value(variable)
            collection, role = ROLES.get(variable.name, ("params", variable.name))
            if _is_depthwise(variable):
                array, role = np.swapaxes(array, 2, 3), "depthwise_kernel"
            place = ("classifier", "hidden") if isinstance(layer, keras.layers.Dense) else ("backbone",)
            tree[collection, *place, layer.name, role] = array
    return {"batch_stats": {}} | unflatten_dict(tree)


def _is_depthwise(variable: keras.Variable) -> bool:
    return len(variable.shape) == 4 and variable.shape[-1] == 1
