"""The six pre-trained networks without Keras: sizes, shapes, what the thesis freezes, and class activation maps."""

import re
from functools import cache

import jax
import numpy as np
import pytest

from pcamjax.errors import InputError
from pcamjax.explain.cams import grad_cam
from pcamjax.explain.layers import layer_names
from pcamjax.models import MODELS, create, frozen_layers, model_spec
from pcamjax.models.graph import layer_graph
from pcamjax.models.variables import initial_variables, join_parameters, split_parameters, variable_shapes

# All parameters, and those that are trained with the thesis' layers frozen, as the thesis gives them.
PUBLISHED = {"vgg19": (25_269_826, 25_009_666), "inception_v3": (24_426_786, 18_839_938),
             "resnet50": (26_211_714, 22_074_882), "xception": (23_485_482, 15_868_290),
             "densenet201": (20_814_914, 9_475_330), "mobilenet": (4_804_290, 4_513_282)}
# How many layers the thesis freezes, the input left out, and their names.
FROZEN = {
    "vgg19": (5, r"block1_(conv[12]|pool)|block2_conv[12]"),
    # Module 6 is cut across its branches: of them a first convolution, and two that read none of the others.
    "inception_v3": (171, r"(conv2d|batch_normalization|activation)(_[1-9]|_[1-4]\d|_5[45])?|conv2d_51|"
                          r"average_pooling2d(_[1-4])?|max_pooling2d(_[12])?|mixed[0-5]"),
    "resnet50": (102, r"(conv|pool)[123]_.*|conv4_block[12]_.*"),
    "xception": (75, r"block[1-8]_.*|(conv2d|batch_normalization)(_[12])?|add(_[1-6])?"),
    "densenet201": (480, r"zero_padding2d(_1)?|(conv|pool)[1-4](_.*)?"),
    "mobilenet": (42, r"conv1(_bn|_relu)?|conv_(pad|dw|pw)_[1-6](_bn|_relu)?"),
}
# Feature maps at 96 and at the native size, and the map that is explained.
MAPS = {
    "vgg19": ((3, 3, 512), (7, 7, 512), (6, 6, 512)),
    "inception_v3": ((1, 1, 2048), (8, 8, 2048), (4, 4, 768)),
    "resnet50": ((3, 3, 2048), (7, 7, 2048), (3, 3, 2048)),
    "xception": ((3, 3, 2048), (10, 10, 2048), (3, 3, 2048)),
    "densenet201": ((3, 3, 1920), (7, 7, 1920), (3, 3, 1920)),
    "mobilenet": ((3, 3, 1024), (7, 7, 1024), (3, 3, 1024)),
}
ALPHAS = ["mobilenet_075", "mobilenet_050", "mobilenet_025"]


thesis_frozen = cache(frozen_layers)  # for DenseNet201 it takes seconds


def size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", [*PUBLISHED, *ALPHAS])
def test_parameters_are_as_published(name):
    variables = variable_shapes(name)
    trained, fixed = split_parameters(variables["params"], thesis_frozen(name))
    assert (size(variables), size(trained)) == MODELS[name].parameters == PUBLISHED.get(name, MODELS[name].parameters)
    assert set(fixed) <= thesis_frozen(name)
    assert jax.tree.structure(join_parameters(trained, fixed)) == jax.tree.structure(variables["params"])


@pytest.mark.parametrize("name", FROZEN)
def test_the_layers_that_the_thesis_freezes(name):
    frozen, (count, pattern) = thesis_frozen(name), FROZEN[name]
    layers = [layer.name for layer in layer_graph(create(name).backbone, train=False).values()]
    assert frozen == {layer for layer in layers if re.fullmatch(pattern, layer)} and len(frozen) == count
    assert len(layers) == len(set(layers)), "names are not unique"


def test_layers_to_freeze_by_name():
    assert frozen_layers("vgg19", "none") == set()
    assert frozen_layers("vgg19", "backbone") == set(variable_shapes("vgg19")["params"]["backbone"]) | {
        f"block{i}_pool" for i in range(1, 6)}
    assert frozen_layers("vgg19", "block1_conv2") == {"block1_conv1", "block1_conv2"}
    assert frozen_layers("mobilenet_025", "conv_pw_6_relu") == frozen_layers("mobilenet_025")
    assert frozen_layers("inception_v3", "activation_55, conv2d_51") == frozen_layers("inception_v3")
    with pytest.raises(InputError, match="mobilenet has no layer 'conv9'"):
        frozen_layers("mobilenet", "conv1,conv9")


def test_mobilenet_of_any_alpha():
    kernel = variable_shapes("mobilenet_130")["params"]["backbone"]["conv_pw_1"]["kernel"]
    assert kernel.shape == (1, 1, int(32 * 1.3), int(64 * 1.3)) and not model_spec("mobilenet_130").weights
    for name in ("mobilenet_003", "mobilenet_13", "mobilenet_1.3"):
        with pytest.raises(InputError, match=f"network '{name}' is not known"):
            model_spec(name)


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_their_shapes(name):
    at_96, native, explained = MAPS[name]
    shapes = layer_names(create(name), variable_shapes(name), (2, 96, 96, 3))
    assert shapes["logits"] == (2, 2) and shapes["backbone"] == (2, *at_96)
    assert shapes[MODELS[name].cam_layer] == (2, *explained)
    spec = MODELS[name]
    layers = list(layer_graph(spec.build(imagenet=True), spec.native_size, train=False).values())
    assert [layer.shape for layer in layers if layer.path[0] == "backbone"][-1] == (1, *native)
    assert layers[-1].shape == (1, 1000)


def test_class_activation_maps_of_any_layer():
    network, variables = create("mobilenet_025"), initial_variables("mobilenet_025", seed=0)
    images = jax.random.normal(jax.random.key(1), (2, 96, 96, 3))

    def explain(layer):
        return jax.jit(lambda variables, images: grad_cam(network, variables, images, target="margin", layer=layer)
                       )(variables, images)

    last, whole = explain(MODELS["mobilenet_025"].cam_layer), explain(None)
    assert last.shape == (2, 3, 3) and last.max() > 0
    np.testing.assert_allclose(last, whole, rtol=1e-4, atol=1e-6 * float(whole.max()))  # it is the output of features
    inner = np.asarray(explain("conv_pw_6_relu"))
    assert inner.shape == (2, 6, 6) and inner.min() >= 0 and abs(inner[0] - inner[1]).max() > 0.1 * inner.max() > 0
