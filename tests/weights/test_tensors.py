"""The tensors of a network as Keras lists them."""

from math import prod

import numpy as np
import pytest

from pcamjax.models import MODELS
from pcamjax.weights.tensors import keras_layers, swap_axes, with_tensors


@pytest.mark.parametrize("name", ["scratch1", "scratch3", "vgg19", "inception_v3", "xception", "mobilenet_025"])
def test_every_parameter_is_in_exactly_one_tensor(name):
    tensors = [tensor for layer in keras_layers(name) for tensor in layer.tensors]
    assert sum(prod(tensor.shape) for tensor in tensors) == MODELS[name].parameters[0]
    assert len({tensor.path for tensor in tensors}) == len(tensors)


def test_layers_have_keras_names_and_classes():
    layers = keras_layers("mobilenet_025")
    assert [(layer.name, layer.stem) for layer in layers[:3]] == [
        ("conv1", "conv2d"), ("conv1_bn", "batch_normalization"), ("conv1_relu", "relu")]
    assert [layer.name for layer in layers if not layer.in_backbone] == [
        "avg_pool", "dense1", "dense1_dropout", "dense2", "dense2_dropout", "logits"]
    assert [layer.name for layer in with_tensors("mobilenet_025", imagenet=True)][-1] == "conv_preds"


@pytest.mark.parametrize(("name", "layer", "roles"), [
    ("mobilenet_025", "conv_dw_1", ["depthwise_kernel"]),
    ("mobilenet_025", "conv1_bn", ["gamma", "beta", "moving_mean", "moving_variance"]),
    ("mobilenet_025", "dense1", ["kernel", "bias"]),
    ("xception", "block2_sepconv1", ["depthwise_kernel", "pointwise_kernel"]),
    ("inception_v3", "batch_normalization", ["beta", "moving_mean", "moving_variance"]),
])
def test_tensors_of_a_layer_are_in_keras_order(name, layer, roles):
    found = {layer.name: layer for layer in keras_layers(name)}[layer]
    assert [tensor.role for tensor in found.tensors] == roles


def test_only_depthwise_kernels_have_other_axes():
    kernel = np.arange(36).reshape(3, 3, 4, 1)
    np.testing.assert_array_equal(swap_axes("depthwise_kernel", kernel)[:, :, 0], kernel[..., 0])
    assert swap_axes("pointwise_kernel", kernel) is kernel
    shapes = {layer.name: layer.tensors[0].shape for layer in keras_layers("mobilenet_025") if layer.tensors}
    assert shapes["conv_dw_2"] == (3, 3, 16, 1)
