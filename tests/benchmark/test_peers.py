"""The peers' networks compute what ours do: Keras' judge the translation to PyTorch, ours judge Keras'."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pcamjax.models import create, frozen_layers
from pcamjax.models.variables import variable_shapes

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

from keras import layers  # noqa: E402
from oracles.keras_networks import as_variables, draw  # noqa: E402

from pcamjax.benchmark.peers.keras_networks import set_variables, variable_paths, whole_network  # noqa: E402
from pcamjax.benchmark.peers.torch_networks import train_mode, translate  # noqa: E402

NINE = ("scratch1", "scratch2", "scratch3", "vgg19", "inception_v3", "resnet50", "xception", "densenet201", "mobilenet")
# Keras' own, where a description is made of a model with a path through a sum.
pytestmark = pytest.mark.filterwarnings("default:__array__ implementation doesn't accept a copy:DeprecationWarning")


def apart(actual, expected) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, size, size, 3)).astype(np.float32)


def by_layer(model) -> dict[str, dict[str, np.ndarray]]:
    """Variables of a Keras model by layer and our roles, in our axes."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for (*_, layer, role), variable, depthwise in variable_paths(model):
        values = variable.numpy()
        found.setdefault(layer, {})[role] = np.swapaxes(values, 2, 3) if depthwise else values
    return found


def every_kind(turned: bool):
    """A small network with each kind of layer and window that the nine have, on images of 27 pixels."""
    x = image = keras.Input((27, 27, 3))
    x = layers.ZeroPadding2D(((0, 1), (0, 1)) if turned else 2, name="pad1")(x)
    x = layers.Conv2D(6, 5, strides=2, name="conv1")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name="bn1")(x)
    x = layers.Activation("relu", name="relu1")(x)
    x = layers.ZeroPadding2D(1, name="pad2")(x)
    x = layers.MaxPooling2D(3, strides=1, name="pool1")(x)
    y = layers.Conv2D(8, (1, 7), padding="same", use_bias=False, name="conv2")(x)
    y = layers.BatchNormalization(scale=False, name="bn2")(y)
    shortcut = layers.Conv2D(8, 1, name="conv3")(x)
    x = layers.ReLU(name="relu2")(layers.Add(name="add")([shortcut, y]))
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="pool2")(x)
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU(6.0, name="relu3")(x)
    x = layers.SeparableConv2D(5, 3, padding="same", use_bias=False, name="separable")(x)
    x = layers.Concatenate(name="concat")([
        x, layers.AveragePooling2D(3, strides=1, padding="same", name="pool3")(x),
        layers.Conv2D(4, 3, padding="same", activation="relu", name="conv4")(x)])
    x = layers.Dropout(0.3, name="dropout")(layers.BatchNormalization(name="bn3")(x))
    x = layers.GlobalAveragePooling2D(name="mean")(x) if turned else layers.Flatten(name="flatten")(x)
    x = layers.Dense(7, "relu", name="dense1")(x)
    return keras.Model(image, layers.Dense(2, name="logits")(x))


@pytest.mark.parametrize("turned", [False, True])
def test_every_kind_of_layer_is_translated(turned):
    model, batch = every_kind(turned), images(4, 27)
    draw(model, batch, seed=0)
    network = translate(model.get_config(), by_layer(model))
    assert network.turned == turned
    with torch.inference_mode():
        logits = network.module.eval()(network.images(batch)).numpy()
    expected = np.asarray(model(batch, training=False))
    assert apart(logits, expected) < 1e-5
    assert apart(logits[0], expected[1]) > 0.1  # or all images would look the same


def test_what_is_frozen_keeps_its_statistics_and_has_no_gradient():
    model, batch = every_kind(True), images(4, 27)
    model.get_layer("dropout").rate = 0.0
    draw(model, batch, seed=1)
    frozen = frozenset({"conv1", "bn1", "conv2"})
    network = translate(model.get_config(), by_layer(model), frozen)
    train_mode(network.module, frozen)
    network.module(network.images(batch)).square().sum().backward()

    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(batch, training=True)**2)
    gradients = dict(zip((variable.path for variable in model.trainable_variables),
                         tape.gradient(loss, [variable.value for variable in model.trainable_variables]), strict=True))
    ours = {name: parameter.grad for name, parameter in network.module.named_parameters()}
    assert {name.split(".")[0] for name, gradient in ours.items() if gradient is None} == frozen | {"bn2"}
    assert ours["bn2.weight"] is None and ours["bn2.bias"] is not None  # it has no scale, which stays 1
    for name in ("conv3", "depthwise", "conv4"):
        (path,) = (path for path in gradients if path.startswith(f"{name}/") and path.endswith("kernel"))
        expected = np.asarray(gradients[path])
        expected = np.swapaxes(expected, 2, 3) if name == "depthwise" else expected
        expected = expected[::-1, ::-1].transpose(3, 2, 0, 1)
        assert apart(ours[f"{name}.weight"].numpy(), expected) < 1e-4, name
    kept, moved = (network.module.get_submodule(name).running_mean.numpy() for name in ("bn1", "bn3"))
    np.testing.assert_array_equal(kept, model.get_layer("bn1").moving_mean.numpy())
    assert apart(moved, model.get_layer("bn3").moving_mean.numpy()) < 1e-5


@pytest.mark.parametrize(("layer", "said"), [
    (lambda: layers.GaussianNoise(0.1, name="last"), "last: layers of the kind GaussianNoise are not known here"),
    (lambda: layers.Conv2D(3, 3, 2, "same", name="last"), r"last: PyTorch cannot pad it by \[\(0, 1\), \(0, 1\)\]"),
    (lambda: layers.AveragePooling2D(3, 2, "same", name="last"), "last: PyTorch cannot pad it")])
def test_what_cannot_be_translated_is_named(layer, said):
    image = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=said):
        translate(keras.Model(image, layer()(image)).get_config(), {"last": {}})


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in ("scratch1", "mobilenet")
                                               else pytest.mark.exhaustive) for name in NINE])
def test_the_nine_give_our_logits(name):
    model, batch = whole_network(name), images(2, 96)
    draw(model, batch, seed=2)  # as after some training: BatchNorms that do nothing would hide a wrong order or epsilon
    variables, expected = as_variables(model), np.asarray(model(batch, training=False))
    shapes = jax.tree.map(lambda leaf: leaf.shape, variable_shapes(name))
    assert jax.tree.map(np.shape, variables) == shapes
    assert apart(np.asarray(jax.jit(create(name).apply)(variables, batch)), expected) < 1e-4

    network = translate(model.get_config(), by_layer(model), frozen_layers(name))
    with torch.inference_mode():
        logits = network.module.eval()(network.images(batch)).numpy()
    assert apart(logits, expected) < 1e-4
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    set_variables(model, flatten_dict(variables))
    assert apart(np.asarray(model(batch, training=False)), expected) == 0
