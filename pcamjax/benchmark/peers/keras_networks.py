"""The nine networks in Keras, with our names of layers; their variables as ours and ours as theirs."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from pcamjax.benchmark.material import Material

# Classes of keras.applications.
CLASSES = {"vgg19": "VGG19", "inception_v3": "InceptionV3", "resnet50": "ResNet50", "xception": "Xception",
           "densenet201": "DenseNet201", "mobilenet": "MobileNet"}
SCRATCH = ("scratch1", "scratch2", "scratch3")
ROLES = {"gamma": ("params", "scale"), "beta": ("params", "bias"),
         "moving_mean": ("batch_stats", "mean"), "moving_variance": ("batch_stats", "var")}

Path = tuple[str, ...]


def keras_network(name: str, size: int, **options: Any) -> keras.Model:
    """Keras' network for images of `size`, by default without a classifier, its layers numbered from the start."""
    keras.utils.clear_session()
    family, _, alpha = name.rpartition("_")
    if family == "mobilenet":
        name, options = family, options | {"alpha": int(alpha) / 100}
    options = {"weights": None, "include_top": False, "input_shape": (size, size, 3)} | options
    return getattr(keras.applications, CLASSES[name])(**options)


def fine_tuned(base: keras.Model, dropout: float = 0.2) -> keras.Model:
    """The thesis' classifier on `base`: the logits of an image."""
    if base.name == "vgg19":
        x = layers.Flatten(name="flatten")(base.output)
    else:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(base.output)
    return keras.Model(base.input, _hidden_layers(x, (1024, 512), (dropout, dropout)))


def whole_network(name: str, size: int = 96) -> keras.Model:
    """Any of the nine with the thesis' classifier and dropout, from preprocessed images to logits."""
    if name not in SCRATCH:
        return fine_tuned(keras_network(name, size))
    image = keras.Input((size, size, 3))
    if name == "scratch1":
        x = layers.Flatten(name="flatten")(_plain_blocks(image))
    else:
        x = _residual_blocks(image, inception_blocks=int(name == "scratch3"))
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(image, _hidden_layers(x, (512, 128), (0.25, 0.0)))


def load_network(material: Material) -> keras.Model:
    """The whole network of a benchmark's case, with its precision, variables and frozen layers."""
    if material.case.precision == "bfloat16":
        keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    model, frozen = whole_network(material.case.network), material.frozen()
    set_variables(model, material.variables())
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    return model


def variable_paths(model: keras.Model) -> Iterator[tuple[Path, keras.Variable, bool]]:
    """Where our variables have each of a network's, and whether it is a depthwise kernel, [h,w,C,1] instead of our
    [h,w,1,C]."""
    for layer in model.layers:
        for variable in layer.weights:
            depthwise = len(variable.shape) == 4 and variable.shape[-1] == 1
            collection, role = ROLES.get(variable.name, ("params", variable.name))
            place = ("classifier", "hidden") if isinstance(layer, layers.Dense) else ("backbone",)
            yield (collection, *place, layer.name, "depthwise_kernel" if depthwise else role), variable, depthwise


def set_variables(model: keras.Model, values: dict[Path, np.ndarray]) -> None:
    """Gives a network our variables, each by its path."""
    for path, variable, depthwise in variable_paths(model):
        variable.assign(np.swapaxes(values[path], 2, 3) if depthwise else values[path])


def _hidden_layers(x: Any, units: tuple[int, ...], rates: tuple[float, ...]) -> Any:
    for i, (size, rate) in enumerate(zip(units, rates, strict=True), start=1):
        x = layers.Dense(size, "relu", name=f"dense{i}")(x)
        if rate:
            x = layers.Dropout(rate, name=f"dense{i}_dropout")(x)
    return layers.Dense(2, name="logits")(x)


def _plain_blocks(x: Any) -> Any:
    for i, filters in enumerate((32, 64, 128), start=1):
        for j in (1, 2):
            x = layers.Conv2D(filters, 3, activation="relu", name=f"block{i}_conv{j}")(x)
            x = layers.BatchNormalization(name=f"block{i}_bn{j}")(x)
        x = layers.MaxPooling2D(2, name=f"block{i}_pool")(x)
        x = layers.Dropout(0.25, name=f"block{i}_dropout")(x)
    return x


def _residual_blocks(x: Any, inception_blocks: int) -> Any:
    for i, filters in enumerate((32, 64, 128, 256, 512, 1024), start=1):
        def transform(x: Any, filters: int, size: int, name: str, inception: bool = i <= inception_blocks) -> Any:
            convolved = (_inception_module(x, filters, name) if inception else
                         layers.Conv2D(filters, size, padding="same", name=f"{name}_conv")(x))
            return layers.BatchNormalization(name=f"{name}_bn")(convolved)

        y = layers.ReLU(name=f"block{i}_1_relu")(transform(x, filters, 1, f"block{i}_1"))
        y = layers.ReLU(name=f"block{i}_2_relu")(transform(y, filters, 3, f"block{i}_2"))
        y = transform(y, 4 * filters, 1, f"block{i}_3")
        y = layers.Add(name=f"block{i}_add")([y, transform(x, 4 * filters, 1, f"block{i}_0")])
        x = layers.ReLU(name=f"block{i}_out")(y)
        x = layers.MaxPooling2D(2, name=f"block{i}_pool")(x)
        x = layers.Dropout(0.25, name=f"block{i}_dropout")(x)
    return x


def _inception_module(x: Any, filters: int, name: str) -> Any:
    def conv(x: Any, filters: int, size: int, path: str) -> Any:
        return layers.Conv2D(filters, size, padding="same", activation="relu", name=f"{name}_{path}_{size}x{size}")(x)

    return layers.Concatenate(name=f"{name}_concat")([
        conv(x, filters, 1, "path1"),
        conv(conv(x, filters // 2, 1, "path2"), filters, 3, "path2"),
        conv(conv(x, filters // 2, 1, "path3"), filters, 5, "path3"),
        conv(layers.MaxPooling2D(3, 1, "same", name=f"{name}_path4_pool")(x), filters, 1, "path4")])
