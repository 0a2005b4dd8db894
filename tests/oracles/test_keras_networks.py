"""Keras as the judge of the six pre-trained networks: layers, maps, gradients, a training step, real weights.

Rounding apart they are the same functions; a wrong epsilon, padding or order moves these figures by far more.
"""

import importlib
import tarfile
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from sklearn.datasets import load_sample_images

from pcamjax.models import MODELS, create, frozen_layers
from pcamjax.models.graph import keras_order, layer_graph, upstream
from pcamjax.models.layers import Training
from pcamjax.models.variables import join_parameters, split_parameters, variable_shapes
from pcamjax.training.losses import make_loss
from pcamjax.training.optimizers import make_optimizer
from pcamjax.weights import load_weights

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from oracles.keras_networks import as_variables, draw, precision  # noqa: E402

from pcamjax.benchmark.peers.keras_networks import CLASSES, fine_tuned, keras_network  # noqa: E402

# Keras' own, where it saves a model.
pytestmark = pytest.mark.filterwarnings("default:__array__ implementation doesn't accept a copy:DeprecationWarning")

# Entries of Keras' `base.layers` that the thesis freezes, the input among them.
FROZEN = {"vgg19": 6, "inception_v3": 172, "resnet50": 103, "xception": 76, "densenet201": 481, "mobilenet": 43}
MODULES = {name: "densenet" if name == "densenet201" else name for name in CLASSES}
SMALLEST = {"inception_v3": 75, "xception": 71}  # sizes that Keras still accepts; 32 for the others


def one_over_t():
    return keras.optimizers.schedules.InverseTimeDecay(1e-3, decay_steps=1, decay_rate=1e-3 / 50)


OPTIMIZERS = {
    "vgg19": lambda: keras.optimizers.SGD(one_over_t(), momentum=0.9),
    "inception_v3": lambda: keras.optimizers.SGD(1e-4, momentum=0.9, nesterov=True),
    "resnet50": lambda: keras.optimizers.Adamax(1e-3),
    "xception": lambda: keras.optimizers.Nadam(1e-4),
    "densenet201": lambda: keras.optimizers.SGD(one_over_t(), momentum=0.9),
    "mobilenet": lambda: keras.optimizers.Adam(1e-5),
}


def apart(actual, expected) -> float:
    """The distance of two tensors in units of the second's norm."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(keras.config.floatx())


def maps_of(model, images) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What each layer of a Keras model puts out, the input layer left out, and its output."""
    layers = model.layers[1:]
    maps = keras.Model(model.input, [layer.output for layer in layers])(images, training=False)
    named = {layer.name: np.asarray(values) for layer, values in zip(layers, maps, strict=True)}
    return named, named[layers[-1].name]


def our_maps(network, variables, images, method="__call__") -> tuple[dict[str, jax.Array], jax.Array]:
    @jax.jit
    def run(variables, images):
        output, caught = network.apply(variables, images, method=method, capture_intermediates=True,
                                       mutable=["intermediates"])
        # A BatchNorm is caught twice: itself, and linen's that it shares its place with.
        return {path[-2]: values[-1] for path, values in flatten_dict(caught["intermediates"]).items()
                if len(path) > 2}, output

    return run(variables, images)


def assert_same_maps(network, variables, model, images, method="__call__"):
    expected, expected_output = maps_of(model, images)
    actual, output = our_maps(network, variables, images, method)
    assert expected.keys() - actual.keys() <= {"predictions"}  # MobileNet's activation, which puts out logits here
    differences = {name: apart(actual[name], values) for name, values in expected.items() if name in actual}
    differences["output"] = apart(output, expected_output)
    worst = max(differences, key=differences.__getitem__)
    assert differences[worst] < 1e-4, f"{worst}: {differences[worst]}"
    # Nothing would be shown by maps that are dead, or the same at all places of all images.
    for name, values in expected.items():
        size = np.sqrt((values**2).mean())
        assert 0.1 < size < 20, f"{name}: {size}"
        if values.ndim == 4 and values.shape[1] > 1:
            assert (values - values.mean((0, 1, 2))).std() > 0.05 * size, name


@pytest.mark.parametrize("name", CLASSES)
def test_layers_are_listed_as_keras_lists_them_and_those_of_the_thesis_are_frozen(name):
    listed = [layer.name for layer in keras_network(name, 96).layers]
    graph = layer_graph(create(name).backbone, train=False)
    assert [layer.name for layer in keras_order(graph)] == listed[1:]
    assert upstream(graph, MODELS[name].frozen_through) == set(listed[1:FROZEN[name]])


def read(path, name, **options) -> dict:
    """The variables in a file; they take the place of zeros, which are made faster than random ones."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), variable_shapes(name, **options))
    return load_weights(path, name, zeros, **options).variables


@pytest.mark.parametrize("name", [*CLASSES, "mobilenet_025"])
def test_maps_and_logits_at_96_with_weights_from_a_file(name, tmp_path):
    model, images = fine_tuned(keras_network(name, 96)), noise(2, 96, 96, 3)
    draw(model, images, seed=0)
    model.save_weights(tmp_path / "drawn.weights.h5")
    assert_same_maps(create(name), read(tmp_path / "drawn.weights.h5", name), model, images)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*CLASSES, "mobilenet_025"])
def test_maps_and_imagenet_logits_at_the_native_size_with_weights_from_a_file(name, tmp_path):
    size = MODELS[name].native_size
    model, images = keras_network(name, size, include_top=True, classifier_activation=None), noise(2, size, size, 3)
    draw(model, images, seed=0)
    model.save(tmp_path / "drawn.h5")
    variables = read(tmp_path / "drawn.h5", name, imagenet=True)
    assert_same_maps(MODELS[name].build(imagenet=True), variables, model, images)


def keras_step(name, model, images, labels):
    """The loss, its gradients and all variables after one step of a Keras model; what is frozen has none."""
    one_hot = np.eye(2)[labels]
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        # By hand: Keras takes the logits behind a softmax for those of two sigmoids.
        if MODELS[name].activation == "sigmoid":
            loss = keras.ops.mean(keras.ops.softplus(logits) - one_hot * logits)
        else:
            loss = -keras.ops.mean(keras.ops.sum(one_hot * keras.ops.log_softmax(logits), axis=-1))
    trained = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in trained])
    by_path = {variable.path: gradient.numpy() for variable, gradient in zip(trained, gradients, strict=True)}
    OPTIMIZERS[name]().apply(gradients, trained)
    gradients = as_variables(model, lambda variable: by_path.get(variable.path, np.zeros(variable.shape)))["params"]
    return float(loss), gradients, as_variables(model)


def our_step(name, variables, images, labels, frozen):
    """The same of ours."""
    spec = MODELS[name]
    network, loss = spec.build(Training(frozen=frozen)), make_loss("binary_crossentropy", spec.activation)
    optimizer = make_optimizer(importlib.import_module(f"configs.{name}").get_config().optimizer, 100)

    @jax.jit
    def step(variables):
        trained, fixed = split_parameters(variables["params"], frozen)

        def mean_loss(trained):
            # In training the classifier differs by its dropout alone, hence not here.
            logits, updated = network.apply(
                {**variables, "params": join_parameters(trained, fixed)}, jnp.asarray(images), mutable=["batch_stats"],
                method=lambda network, images: network.head(network.features(images, train=True)))
            return loss(logits, jnp.asarray(labels)).mean(), updated.get("batch_stats", {})

        (value, batch_stats), gradients = jax.value_and_grad(mean_loss, has_aux=True)(trained)
        updates, _ = optimizer.update(gradients, optimizer.init(trained), trained)
        params = join_parameters(optax.apply_updates(trained, updates), fixed)
        return value, gradients, {"params": params, "batch_stats": batch_stats}

    return step(variables)


def flat(tree) -> dict[tuple[str, ...], np.ndarray]:
    return {path: np.asarray(values) for path, values in flatten_dict(tree).items()}


def norm(tensors) -> float:
    return sum(np.sum(values**2) for values in tensors.values())**0.5


QUICK = {("vgg19", "none"), ("mobilenet", "none"), ("mobilenet", "thesis")}


@pytest.mark.parametrize("name, boundary", [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.exhaustive)
    for case in product(CLASSES, ("none", "thesis"))])
def test_gradients_and_one_step_in_double_precision(name, boundary):
    size, labels = SMALLEST.get(name, 64), np.array([0, 1, 1, 0], np.int32)
    frozen = frozen_layers(name, boundary)
    with precision("float64"):
        base, images = keras_network(name, size), noise(4, size, size, 3)
        model = fine_tuned(base, dropout=0.0)
        draw(model, images, seed=0)
        before = as_variables(model)
        for layer in base.layers[:FROZEN[name] if frozen else 0]:
            layer.trainable = False
        expected_loss, expected_gradients, expected_after = keras_step(name, model, images, labels)
        loss, gradients, after = our_step(name, before, images, labels, frozen)
        before, after, expected_after = flat(before), flat(after), flat(expected_after)
        gradients, expected_gradients = flat(gradients), flat(expected_gradients)
    assert not jax.config.jax_enable_x64 and keras.config.floatx() == "float32"

    assert loss == pytest.approx(expected_loss, rel=1e-10)
    floor = 1e-9 * norm(expected_gradients)
    rounding = set()  # conv biases that a BatchNorm takes out again: their gradients are zero, but for rounding
    for path, values in gradients.items():
        expected = expected_gradients[path]
        assert values.dtype == np.float64
        if np.linalg.norm(expected) > floor:
            assert apart(values, expected) < 1e-9, path  # an epsilon of 1e-5 instead of 1.001e-5 already shows
        else:
            rounding.add(path)
            assert np.linalg.norm(values) < floor, path
    assert all(name == "resnet50" and path[-1] == "bias" and path[-2].endswith("_conv") for path in rounding)
    assert len(rounding) == {("resnet50", "none"): 53, ("resnet50", "thesis"): 22}.get((name, boundary), 0)

    assert after.keys() == expected_after.keys()
    for path, values in after.items():
        moved, expected = values - before[path], expected_after[path] - before[path]
        if path[-2] in frozen:
            assert not moved.any() and not expected.any(), path
        elif path[1:] not in rounding:
            # Our optimizers count their steps in float32.
            assert apart(moved, expected) < (1e-9 if path[0] == "batch_stats" else 1e-6), path


def photos(size: int) -> np.ndarray:
    """Two photographs that scikit-learn ships."""
    return np.stack([Image.fromarray(image).resize((size, size)) for image in load_sample_images().images])


def patches(archive) -> np.ndarray:
    with tarfile.open(archive) as file:
        return np.stack([Image.open(file.extractfile(member)) for member in file.getmembers()[:16]])


@pytest.mark.parametrize("size", [224, 96])
def test_real_mobilenet_sees_in_photos_and_patches_what_keras_sees(real_patches, size):
    weights = real_patches / "weights" / "mobilenet_1_0_224_tf_no_top.h5"
    pixels = photos(224) if size == 224 else patches(real_patches / "pcam" / "valid.tar")
    assert pixels.shape[1:] == (size, size, 3) and pixels.std() > 20
    images = MODELS["mobilenet"].preprocess(jnp.asarray(pixels, jnp.float32))
    expected, features = maps_of(keras_network("mobilenet", size, weights=str(weights)),
                                 keras.applications.mobilenet.preprocess_input(pixels.astype(np.float32)))
    actual, output = our_maps(create("mobilenet"), read(weights, "mobilenet"), images, "features")
    assert actual.keys() == expected.keys()
    assert max(apart(actual[name], values) for name, values in expected.items()) < 1e-4
    assert apart(output, features) < 1e-4


@pytest.mark.parametrize("name", CLASSES)
def test_pixels_are_prepared_as_by_keras(name):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 5, 7, 3)).astype(np.float32)
    expected = getattr(keras.applications, MODULES[name]).preprocess_input(pixels.copy())
    actual = MODELS[name].preprocess(jnp.asarray(pixels))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * abs(expected).max())
