"""What the names inside a file of weights tell, in every generation of Keras: which layer, and which of its tensors."""

import re
from collections.abc import Collection, Sequence

# Endings that tell what a tensor is, Keras 1's last.
ROLES = {name: name for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance",
                                 "depthwise_kernel", "pointwise_kernel")}
ROLES |= {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
# block1_conv1_W_1:0, conv1/bn/gamma:0, sequential/dense_1/kernel
TENSOR = re.compile(rf"(?:(?P<layer>.*?)[/_])?(?P<role>{'|'.join(ROLES)})(?:_\d+)?(?::\d+)?")
# Names that Keras gives by itself; it counts on through a session, so that only differences of numbers tell anything.
AUTOMATIC = re.compile(r"(conv2d|convolution2d|batch_normalization|batchnormalization|dense)(?:_(\d+))?")
KERAS_1 = {"convolution2d": "conv2d", "batchnormalization": "batch_normalization"}
# The layers of ImageNet's classifiers, and what older files call the last.
IMAGENET = {"fc1": "fc1", "fc2": "fc2", "conv_preds": "conv_preds"}
IMAGENET |= dict.fromkeys(("predictions", "fc1000", "probs"), "predictions")


def split_name(tensor: str) -> tuple[str | None, str | None]:
    """(layer, role) of a tensor's name, role as Keras 2 has it; None for what the name does not tell."""
    found = TENSOR.fullmatch(tensor)
    return (found["layer"], ROLES[found["role"]]) if found else (None, None)


def same_role(found: str, expected: str) -> bool:
    """Whether two roles are one: Keras 3 calls the kernel of a DepthwiseConv2D just kernel."""
    return found == expected or (found, expected) == ("kernel", "depthwise_kernel")


def canonical(layers: Sequence[str]) -> list[str]:
    """Names of layers in one spelling, automatic numbers from 0 on: conv2d_0, conv1_bn for conv2d_5, conv1/bn."""
    names = [name.replace("/", "_") for name in layers]
    automatic = [AUTOMATIC.fullmatch(name) for name in names]
    numbered = [(KERAS_1.get(found[1], found[1]), int(found[2] or 0)) if found else None for found in automatic]
    first: dict[str, int] = {}
    for stem, number in filter(None, numbered):
        first[stem] = min(number, first.get(stem, number))
    return [f"{entry[0]}_{entry[1] - first[entry[0]]}" if entry else IMAGENET.get(name, name)
            for name, entry in zip(names, numbered, strict=True)]


def same_layer(found: str, expected: str, others: Collection[str]) -> bool:
    """Whether two canonical names are one layer's: they have the same numbers, and `found` is not one of `others`."""
    return found == expected or (found not in others and re.findall(r"\d+", found) == re.findall(r"\d+", expected))


def names_another(scope: str, layer: str, others: Collection[str]) -> bool:
    """Whether the layer in a tensor's name (`scope`, perhaps with outer scopes) is one of `others` and not `layer`."""
    parts = scope.split("/")
    names = ["_".join(parts[start:]) for start in range(len(parts))]
    return layer not in names and any(name in others for name in names)
