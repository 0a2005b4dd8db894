"""Xception with the layers and names of keras/src/applications/xception.py (Chollet, arXiv 1610.02357).

Keras numbers the layers it was given no name for: the 1x1 convolutions of the shortcuts are conv2d, conv2d_1, ...
"""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import Add, BatchNorm, Conv, MaxPool, Relu, SeparableConv, Training, numbered
from pcamjax.models.network import FineTunedClassifier, ImageNetClassifier, Network

FeatureMap = Float[Array, "b _ _ _"]
# Filters of the separable convolutions of the blocks that halve the extent: 2 to 4 at the entry, 13 at the exit.
ENTRY = ((128, 128), (256, 256), (728, 728))
EXIT = (728, 1024)
MIDDLE = 8  # blocks that keep it, of three separable convolutions of 728 filters each


class Xception(nn.Module):
    """Two convolutions and thirty-four separable ones around shortcuts: [B,96,96,3] -> [B,3,3,2048]."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> FeatureMap:
        def norm(x: FeatureMap, name: str) -> FeatureMap:
            return BatchNorm(self.training, name=name)(x, train=train)

        def separable(x: FeatureMap, filters: int, name: str) -> FeatureMap:
            return norm(SeparableConv(filters, name=name)(x), f"{name}_bn")

        def halve(x: FeatureMap, filters: tuple[int, int], block: int, shortcut: int) -> FeatureMap:
            residual = Conv(filters[-1], (1, 1), (2, 2), use_bias=False, name=numbered("conv2d", shortcut))(x)
            residual = norm(residual, numbered("batch_normalization", shortcut))
            for i in (1, 2):
                if block > 2 or i > 1:  # block 2 begins behind an activation
                    x = Relu(name=f"block{block}_sepconv{i}_act")(x)
                x = separable(x, filters[i - 1], f"block{block}_sepconv{i}")
            return Add(name=numbered("add", 11 if block == 13 else shortcut))(
                MaxPool(3, 2, "SAME", name=f"block{block}_pool")(x), residual)

        for i, (filters, stride) in enumerate(((32, 2), (64, 1)), start=1):
            name = f"block1_conv{i}"
            x = norm(Conv(filters, (3, 3), (stride, stride), "VALID", use_bias=False, name=name)(x), f"{name}_bn")
            x = Relu(name=f"{name}_act")(x)
        for i, filters in enumerate(ENTRY):
            x = halve(x, filters, i + 2, i)
        for i in range(MIDDLE):
            y, block = x, i + 5
            for j in (1, 2, 3):
                y = separable(Relu(name=f"block{block}_sepconv{j}_act")(y), 728, f"block{block}_sepconv{j}")
            x = Add(name=numbered("add", i + 3))(y, x)
        x = halve(x, EXIT, 13, 3)
        for i, filters in enumerate((1536, 2048), start=1):
            x = Relu(name=f"block14_sepconv{i}_act")(separable(x, filters, f"block14_sepconv{i}"))
        return x


def xception(training: Training = Training(), *, imagenet: bool = False) -> Network:
    """Xception: 23,485,482 parameters; its feature map of a 96x96 image is 3x3x2048."""
    return Network(Xception(training), ImageNetClassifier() if imagenet else FineTunedClassifier(training))
