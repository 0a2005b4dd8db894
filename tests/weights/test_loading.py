"""Networks with weights from nowhere, from a file and from the cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from weights.keras_files import backbone, random_layers, renamed, write_legacy

from pcamjax.errors import InputError
from pcamjax.models.variables import initial_variables
from pcamjax.weights import find_weights, load, load_weights, loading
from pcamjax.weights.conversion import Imported

NAME = "mobilenet_025"


@pytest.fixture(scope="module")
def layers():
    return random_layers(NAME)


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def test_without_weights_everything_is_drawn_from_the_seed():
    network, variables = load(NAME, None, seed=3)
    assert same(variables, initial_variables(NAME, 3))
    assert jax.eval_shape(network.apply, variables, jnp.zeros((1, 96, 96, 3))).shape == (1, 2)


def test_a_file_of_the_backbone_leaves_the_classifier_as_drawn(tmp_path, layers):
    path = write_legacy(tmp_path / "file.h5", renamed(backbone(layers, NAME)))
    drawn = initial_variables(NAME, 3)
    _, variables = load(NAME, path, seed=3)
    assert jax.tree.structure(variables) == jax.tree.structure(drawn)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(variables))
    assert same(variables["params"]["classifier"], drawn["params"]["classifier"])
    read = variables["params"]["backbone"]["conv_dw_3"]["depthwise_kernel"]
    kernel = next(layer for layer in layers if layer.name == "conv_dw_3").tensors["depthwise_kernel"]
    np.testing.assert_array_equal(np.moveaxis(read, 3, 2), kernel)


def test_the_variables_given_stay_as_they_are(tmp_path, layers):
    path = write_legacy(tmp_path / "file.h5", renamed(layers))
    drawn = initial_variables(NAME, 3)
    loaded = load_weights(path, NAME, drawn)
    assert loaded.classifier == "read" and same(drawn, initial_variables(NAME, 3))
    np.testing.assert_array_equal(loaded.variables["params"]["classifier"]["hidden"]["logits"]["kernel"],
                                  layers[-1].tensors["kernel"])


def test_a_network_without_moving_statistics_keeps_their_empty_place(monkeypatch):
    tensors = {("params", "backbone", "conv", "kernel"): np.ones((1, 1, 3, 2), np.float32)}
    monkeypatch.setattr(loading, "read_tensors", lambda *_, **__: Imported(tensors, "read"))
    drawn = {"params": {"backbone": {"conv": {"kernel": jnp.zeros((1, 1, 3, 2))}}}, "batch_stats": {}}
    loaded = load_weights("file.h5", "vgg19", drawn).variables
    assert jax.tree.structure(loaded) == jax.tree.structure(drawn)
    assert loaded["params"]["backbone"]["conv"]["kernel"].all()


def test_the_form_for_imagenet(tmp_path):
    layers = random_layers(NAME, imagenet=True)
    network, variables = load(NAME, write_legacy(tmp_path / "file.h5", renamed(layers)), imagenet=True)
    assert jax.eval_shape(network.apply, variables, jnp.zeros((1, 96, 96, 3))).shape == (1, 1000)
    np.testing.assert_array_equal(variables["params"]["classifier"]["conv_preds"]["bias"], layers[-1].tensors["bias"])


@pytest.mark.parametrize(("name", "weights", "message"), [
    (NAME, "imagnet", f"'imagnet' for {NAME}: no such file; choose imagenet, imagenet_top, .*the path of a file, or"),
    (NAME, "/nowhere/file.h5", "weights '/nowhere/file.h5' .*no such file"),
    ("scratch1", "imagenet", "weights 'imagenet' for scratch1: no weights are published .*the path of a file, or"),
    ("mobilnet", None, "network 'mobilnet' is not known; choose one of"),
])
def test_unknown_names_list_what_there_is(name, weights, message):
    with pytest.raises(InputError, match=message):
        load(name, weights)


def test_a_scratch_network_has_no_form_for_imagenet():
    with pytest.raises(InputError, match="scratch1 has no form for ImageNet"):
        load("scratch1", None, imagenet=True)


@pytest.mark.parametrize(("weights", "imagenet", "file"), [
    ("imagenet", False, "mobilenet_2_5_224_tf_no_top.h5"), ("imagenet_top", False, "mobilenet_2_5_224_tf.h5"),
    ("imagenet", True, "mobilenet_2_5_224_tf.h5"), ("imagenet_160", True, "mobilenet_2_5_160_tf.h5"),
    ("imagenet_top_160", True, "mobilenet_2_5_160_tf.h5")])
def test_published_files_are_found_by_name(tmp_path, monkeypatch, weights, imagenet, file):
    monkeypatch.setenv("PCAMJAX_CACHE", str(tmp_path))
    (tmp_path / file).write_bytes(b"cached")
    assert find_weights(NAME, weights, imagenet=imagenet) == tmp_path / file
