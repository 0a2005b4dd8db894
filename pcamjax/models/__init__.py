"""The networks, in one table."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.models.densenet import densenet201
from pcamjax.models.graph import layer_graph, upstream
from pcamjax.models.inception import inception_v3
from pcamjax.models.mobilenet import mobilenet
from pcamjax.models.network import Network
from pcamjax.models.plain import scratch1
from pcamjax.models.residual import scratch2, scratch3
from pcamjax.models.resnet import resnet50
from pcamjax.models.vgg import vgg19
from pcamjax.models.xception import xception

Images = Float[Array, "b h w 3"]
PRECISIONS = ("float32", "bfloat16")
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights: its address, the MD5 that its publisher gives (None where he gives none), and the
    licence that Keras' documentation names for it."""

    url: str
    md5: str | None
    licence: str

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ModelSpec:
    """What the rest of the project has to know about a network.

    Attributes:
      build: makes the linen module from a `Training`; with `imagenet=True`, where there are weights for it, with the
        classifier of ImageNet's 1000 classes instead of the thesis'.
      preprocess: maps pixels in 0..255 to the network's input.
      activation: what turns the two logits into outputs.
      cam_layer: the layer whose map is explained by default.
      parameters: all, and those that are trained (BatchNorm's moving statistics and frozen layers are not), as
        published; None where nobody has published them.
      frozen_through: the last layers that the thesis freezes; all that they are computed from is frozen too.
      weights: the published files by name: "imagenet" holds the backbone, "imagenet_top" the classifier as well.
      native_size: the images' height and width that the weights were trained on.
      minimum_size: the smallest that leaves a map, or that Keras takes.
    """

    build: Callable[..., Network]
    preprocess: Callable[[Images], Images]
    activation: Literal["softmax", "sigmoid"]
    cam_layer: str
    parameters: tuple[int, int] | None
    frozen_through: tuple[str, ...] = ()
    weights: Mapping[str, WeightsFile] = field(default_factory=dict)
    native_size: int = 96
    minimum_size: int = 32


def unit_range(pixels: Images) -> Images:
    """0..255 to 0..1."""
    return pixels / 255


def caffe(pixels: Images) -> Images:
    """RGB 0..255 to BGR minus ImageNet's means (mode "caffe" of keras/src/applications/imagenet_utils.py)."""
    return pixels[..., ::-1] - jnp.array([103.939, 116.779, 123.68], pixels.dtype).reshape(1, 1, 1, 3)


def symmetric_range(pixels: Images) -> Images:
    """0..255 to -1..1 (Keras' mode "tf")."""
    return pixels / 127.5 - 1


def standardised(pixels: Images) -> Images:
    """0..255 to 0..1, minus ImageNet's means, by its standard deviations (Keras' mode "torch")."""
    mean, deviation = (jnp.array(values, pixels.dtype).reshape(1, 1, 1, 3)
                       for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels / 255 - mean) / deviation


def _files(folder: str, stem: str, md5: str, md5_top: str, licence: str) -> dict[str, WeightsFile]:
    """The two files of a family, without and with ImageNet's classifier, at their usual names."""
    start = f"{KERAS}/{folder}/{stem}_weights_tf_dim_ordering_tf_kernels"
    return {"imagenet": WeightsFile(f"{start}_notop.h5", md5, licence),
            "imagenet_top": WeightsFile(f"{start}.h5", md5_top, licence)}


def _mobilenet_files(alpha: str) -> dict[str, WeightsFile]:
    """The files of one alpha: at 224 pixels as "imagenet", at the others as "imagenet_192" and so on."""
    files = {}
    for size in (224, 192, 160, 128):
        start, suffix = f"{KERAS}/mobilenet/mobilenet_{alpha}_{size}_tf", "" if size == 224 else f"_{size}"
        files |= {f"imagenet{suffix}": WeightsFile(f"{start}_no_top.h5", None, "Apache-2.0"),
                  f"imagenet_top{suffix}": WeightsFile(f"{start}.h5", None, "Apache-2.0")}
    return files


def _mobilenet(alpha: float, parameters: tuple[int, int] | None = None, alpha_in_file: str = "") -> ModelSpec:
    return ModelSpec(partial(mobilenet, alpha=alpha), symmetric_range, "softmax", "conv_pw_13_relu", parameters,
                     ("conv_pw_6_relu",), _mobilenet_files(alpha_in_file) if alpha_in_file else {}, 224)


MODELS: dict[str, ModelSpec] = {
    "scratch1": ModelSpec(scratch1, unit_range, "softmax", "block3_dropout", (4_549_538, 4_548_642),
                          minimum_size=36),
    "scratch2": ModelSpec(scratch2, unit_range, "softmax", "block6_out", (34_403_106, 34_362_786),
                          minimum_size=64),
    "scratch3": ModelSpec(scratch3, unit_range, "softmax", "block6_out", (35_172_066, 35_129_826),
                          minimum_size=64),
    "vgg19": ModelSpec(
        vgg19, caffe, "sigmoid", "block5_conv4", (25_269_826, 25_009_666), ("block2_conv2",),
        _files("vgg19", "vgg19", "253f8cb515780f3b799900260a226db6", "cbe5617147190e668d6c5d5026f83318",
               "CC BY (VGG, Oxford)"), 224),
    "inception_v3": ModelSpec(
        inception_v3, symmetric_range, "softmax", "mixed7", (24_426_786, 18_839_938), ("activation_55", "conv2d_51"),
        _files("inception_v3", "inception_v3", "bcbd6486424b2319ff4ef7d526e38f63",
               "9a0d58056eeedaa3f26cb7ebd46da564", "Apache-2.0"), 299, 75),
    "resnet50": ModelSpec(
        resnet50, caffe, "softmax", "conv5_block3_out", (26_211_714, 22_074_882), ("conv4_block2_out",),
        _files("resnet", "resnet50", "4d473c1dd8becc155b73f8504c6f6626", "2cb95161c43110f7111970584f804107",
               "MIT (K. He)"), 224),
    "xception": ModelSpec(
        xception, symmetric_range, "softmax", "block14_sepconv2_act", (23_485_482, 15_868_290), ("add_6",),
        _files("xception", "xception", "b0042744bf5b25fce3cb969f33bebb97", "0a58e3b7378bc2990ea3b43d5981f1f6", "MIT"),
        299, 71),
    "densenet201": ModelSpec(
        densenet201, standardised, "softmax", "relu", (20_814_914, 9_475_330), ("pool4_pool",),
        _files("densenet", "densenet201", "c13680b51ded0fb44dff2d8f86ac8bb1", "1ceb130c1ea1b78c3bf6114dbdfd8807",
               "BSD-3-Clause (Z. Liu)"), 224),
    "mobilenet": _mobilenet(1.0, (4_804_290, 4_513_282), "1_0"),
    "mobilenet_075": _mobilenet(0.75, (3_146_258, 2_976_002), "7_5"),
    "mobilenet_050": _mobilenet(0.5, (1_880_674, 1_799_170), "5_0"),
    "mobilenet_025": _mobilenet(0.25, (1_007_538, 982_786), "2_5"),
}


def frozen_layers(name: str, frozen: str = "thesis") -> frozenset[str]:
    """The names of the backbone's layers that are not trained; pools and activations among them.

    Args:
      frozen: "none", "backbone" (all of it), "thesis" (through the table's `frozen_through`), or the last layers to
        freeze, separated by commas; what these are computed from is frozen with them.
    Raises:
      InputError: there is no such network or layer.
    """
    spec = model_spec(name)
    through = spec.frozen_through if frozen == "thesis" else tuple(layer.strip() for layer in frozen.split(","))
    if frozen in ("none", "") or not through:
        return frozenset()
    graph = layer_graph(spec.build().backbone, train=False)
    names = {layer.name for layer in graph.values()}
    if frozen == "backbone":
        return frozenset(names)
    if unknown := set(through) - names:
        raise InputError(f"model.frozen: the backbone of {name} has no layer {min(unknown)!r}; choose none, thesis or "
                         "backbone, or layers of it (its classifier is always trained): python -m experiments.summary "
                         f"--config.model.name={name}")
    return upstream(graph, through)


def model_spec(name: str) -> ModelSpec:
    """The table's entry for `name`; MobileNet of any other alpha is mobilenet_<per cent>, as mobilenet_130 for 1.3.

    Raises:
      InputError: there is no such network; the message lists those there are.
    """
    if name in MODELS:
        return MODELS[name]
    if (other := re.fullmatch(r"mobilenet_(\d{3})", name)) and int(other[1]) >= 4:  # one filter in its first layer
        return _mobilenet(int(other[1]) / 100)
    raise InputError(f"network {name!r} is not known; choose one of {', '.join(MODELS)}, or mobilenet_<alpha in per "
                     "cent, three digits>")


def model_input(name: str, precision: str) -> Callable[[Images], Images]:
    """From pixels in 0..255 to the input of the network `name`, in whose dtype it will compute.

    Parameters, BatchNorm's statistics and the logits are float32 all the same.

    Raises:
      InputError: there is no such network or no such precision.
    """
    if precision not in PRECISIONS:
        raise InputError(f"config.model.precision = {precision!r}: choose one of {', '.join(PRECISIONS)}")
    preprocess = model_spec(name).preprocess
    return lambda pixels: preprocess(pixels).astype(precision)


def create(name: str) -> Network:
    """The linen module of the network `name`; initialise it with [B,96,96,3] float32 images.

    Raises:
      InputError: there is no such network.
    """
    return model_spec(name).build()
