"""What names tell, in the spellings of every generation of Keras."""

import pytest

from pcamjax.weights.names import canonical, names_another, same_layer, same_role, split_name


@pytest.mark.parametrize(("name", "told"), [
    ("block1_conv1_W_1:0", ("block1_conv1", "kernel")),
    ("block1_conv1_b_1:0", ("block1_conv1", "bias")),
    ("batchnormalization_1_running_std_1:0", ("batchnormalization_1", "moving_variance")),
    ("batchnormalization_1_running_mean:0", ("batchnormalization_1", "moving_mean")),
    ("block2_sepconv1_pointwise_kernel_1:0", ("block2_sepconv1", "pointwise_kernel")),
    ("conv1/bn/gamma:0", ("conv1/bn", "gamma")),
    ("conv_dw_1/depthwise_kernel:0", ("conv_dw_1", "depthwise_kernel")),
    ("sequential/dense_1/kernel", ("sequential/dense_1", "kernel")),
    ("conv2d_7/kernel_3:0", ("conv2d_7", "kernel")),
    ("beta", (None, "beta")),
    ("param_0", (None, None)),
    ("layers/conv2d/vars/0", (None, None)),
])
def test_names_of_tensors(name, told):
    assert split_name(name) == told


def test_a_depthwise_kernel_may_be_called_a_kernel():
    assert same_role("kernel", "depthwise_kernel") and same_role("gamma", "gamma")
    assert not same_role("depthwise_kernel", "kernel") and not same_role("gamma", "beta")


@pytest.mark.parametrize("names", [
    ["conv2d", "batch_normalization", "conv2d_1", "conv1_bn"],
    ["conv2d_95", "batch_normalization_95", "conv2d_96", "conv1/bn"],
    ["convolution2d_1", "batchnormalization_1", "convolution2d_2", "conv1_bn"],
])
def test_layers_are_counted_from_the_first_of_their_kind(names):
    assert canonical(names) == ["conv2d_0", "batch_normalization_0", "conv2d_1", "conv1_bn"]


def test_imagenets_last_layer_has_had_three_names():
    assert canonical(["fc1000"]) == canonical(["probs"]) == canonical(["predictions"]) == ["predictions"]


def test_a_layer_has_the_same_numbers_and_no_other_layers_name():
    others = {"conv_dw_3_bn", "conv_pw_3_bn"}
    assert same_layer("pointwise_3_norm", "conv_pw_3_bn", others)
    assert not same_layer("conv_pw_4_bn", "conv_pw_3_bn", others)
    assert not same_layer("conv_dw_3_bn", "conv_pw_3_bn", others)


@pytest.mark.parametrize(("scope", "elsewhere"), [
    ("conv2d_1", False), ("model/conv2d_1", False), ("conv2d_1_1", False), ("conv2d", True), ("model/conv2d", True)])
def test_a_tensor_may_name_another_layer_than_the_one_that_holds_it(scope, elsewhere):
    assert names_another(scope, "conv2d_1", {"conv2d", "conv2d_1"}) is elsewhere
