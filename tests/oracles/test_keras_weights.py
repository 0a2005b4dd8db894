"""Keras writes files that we read, and reads files that we write: the same values, the same predictions."""

from functools import partial

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from weights.keras_files import Layer, renamed, write_legacy

from pcamjax.errors import InputError
from pcamjax.models import create
from pcamjax.models.variables import initial_variables
from pcamjax.weights import export_keras, load, load_weights
from pcamjax.weights.conversion import read_tensors
from pcamjax.weights.tensors import swap_axes, with_tensors

NAME = "mobilenet_025"
HEAD = {"dense1": (1024, "relu"), "dense2": (512, "relu"), "logits": (2, None)}
SHAPE = (96, 96, 3)


def classifier(x, names=HEAD):
    """The thesis' classifier, dropout included."""
    x = keras.layers.GlobalAveragePooling2D()(x)
    for name, (units, activation) in HEAD.items():
        x = keras.layers.Dense(units, activation, name=name if name in names else None)(x)
        if activation:
            x = keras.layers.Dropout(0.2)(x)
    return x


def application(top=False, **options):
    options |= {} if top else {"input_shape": SHAPE}
    return keras.applications.MobileNet(alpha=0.25, weights=None, include_top=top, **options)


def draw(model, seed=0):
    """Every variable anew: variances positive, kernels small enough that nothing overflows."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        fan_in = np.prod(variable.shape[:-1]) if variable.name == "kernel" else 1
        spread = rng.uniform(0.5, 1.5, variable.shape)
        variable.assign(spread if variable.name in ("gamma", "moving_variance")
                        else rng.normal(0, np.sqrt(2 / fan_in), variable.shape))
    return model


@pytest.fixture(scope="module")
def base():
    return draw(application())


@pytest.fixture(scope="module")
def whole():
    model = application()
    return draw(keras.Model(model.input, classifier(model.output)))


def assert_values(path, layers, name=NAME, **options):
    """What we read is what these layers of Keras hold, `get_weights()` after `get_weights()`."""
    found = read_tensors(path, name, **options).tensors
    kept = [layer for layer in layers if layer.get_weights()]
    assert len(found) == sum(len(layer.get_weights()) for layer in kept)
    for ours, layer in zip(with_tensors(name, **options), kept, strict=False):
        for tensor, values in zip(ours.tensors, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(found[tensor.path], swap_axes(tensor.role, values))


def save(model, path, recwarn):
    """Saves by the file's name, in silence: Keras warns that .h5 is an old format."""
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    recwarn.clear()
    return path


@pytest.mark.parametrize("suffix", ["h5", "weights.h5", "keras"])
def test_files_of_the_base_and_of_the_whole_network(tmp_path, base, whole, suffix, recwarn):
    assert_values(save(base, tmp_path / f"base.{suffix}", recwarn), base.layers)
    assert_values(save(whole, tmp_path / f"whole.{suffix}", recwarn), whole.layers)


@pytest.mark.parametrize("suffix", ["h5", "weights.h5", "keras"])
@pytest.mark.parametrize("frozen", [0, 37])
def test_files_of_a_base_inside_a_model(tmp_path, base, suffix, frozen, recwarn):
    inside = keras.models.clone_model(base)
    for layer in inside.layers[:frozen]:
        layer.trainable = False
    image = keras.Input(SHAPE)
    model = draw(keras.Model(image, classifier(inside(image), names=())), 1)
    assert_values(save(model, tmp_path / f"model.{suffix}", recwarn), [*inside.layers, *model.layers[2:]])


@pytest.mark.parametrize("suffix", ["weights.h5", "keras"])
def test_files_with_the_state_of_an_optimizer(tmp_path, whole, suffix, recwarn):
    whole.compile("adam", keras.losses.MeanSquaredError(), metrics=["accuracy"])
    whole.optimizer.build(whole.trainable_variables)
    path = save(whole, tmp_path / f"model.{suffix}", recwarn)
    assert path.stat().st_size > 2.5 * 4 * whole.count_params()
    assert_values(path, whole.layers)


@pytest.mark.parametrize("suffix", ["h5", "weights.h5"])
def test_files_of_a_session_with_other_layers_before(tmp_path, suffix, recwarn):
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()
    model = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=SHAPE)
    first = next(layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert first != "conv2d"
    path = save(model, tmp_path / f"model.{suffix}", recwarn)
    assert_values(path, model.layers, "inception_v3")
    with pytest.raises(InputError, match="its tensors are those of inception_v3, load them as that"):
        read_tensors(path, "xception")


def test_a_file_with_imagenets_classifier(tmp_path, recwarn):
    model = draw(application(top=True))
    for suffix in ("h5", "weights.h5", "keras"):
        path = save(model, tmp_path / f"model.{suffix}", recwarn)
        assert_values(path, model.layers, imagenet=True)
        assert_values(path, model.layers[:-4])
        assert read_tensors(path, NAME).classifier == "ImageNet's, left out"


@pytest.mark.parametrize("imagenet", [False, True])
def test_keras_loads_our_file_and_predicts_the_same(tmp_path, whole, imagenet):
    if imagenet:
        model = application(top=True, classifier_activation=None)
    else:
        start = application()
        model = keras.Model(start.input, classifier(start.output))
    size = model.input_shape[1]
    layers = renamed([Layer(layer.name, {v.name: v.numpy() for v in layer.weights})
                      for layer in draw(model, 2).layers if layer.weights])
    network, variables = load(NAME, write_legacy(tmp_path / "made.h5", layers), imagenet=imagenet)
    export_keras(tmp_path / "ours.h5", NAME, variables, imagenet=imagenet)

    draw(model, 3).load_weights(tmp_path / "ours.h5")
    images = np.random.default_rng(4).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    theirs = model.predict(images, verbose=0)
    ours = jax.jit(network.apply)(variables, jnp.asarray(images))
    assert np.std(theirs) > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.linalg.norm(theirs))


def test_the_real_mobilenet_gives_the_features_that_keras_gives(real_patches):
    path = real_patches / "weights" / "mobilenet_1_0_224_tf_no_top.h5"
    model = keras.applications.MobileNet(weights=None, include_top=False, input_shape=SHAPE)
    model.load_weights(path)
    assert_values(path, model.layers, "mobilenet")
    loaded = load_weights(path, "mobilenet", initial_variables("mobilenet", 0))
    assert loaded.classifier == "not in the file"
    network = create("mobilenet")
    images = np.random.default_rng(0).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)
    theirs = model.predict(images, verbose=0)
    ours = jax.jit(partial(network.apply, method=network.features))(loaded.variables, jnp.asarray(images))
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
