"""MobileNet with the layers and names of keras/src/applications/mobilenet.py (Howard et al., arXiv 1704.04861)."""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Relu,
    Training,
    ZeroPad,
)
from pcamjax.models.network import FineTunedClassifier, Network

FeatureMap = Float[Array, "b _ _ _"]
# Filters and stride of the thirteen depthwise separable blocks.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))


class MobileNet(nn.Module):
    """A strided convolution and thirteen blocks of depthwise 3x3 and pointwise 1x1: [B,96,96,3] -> [B,3,3,1024].

    `alpha` scales the number of filters of every layer.
    """

    alpha: float = 1.0
    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> FeatureMap:
        def norm(x: FeatureMap, name: str) -> FeatureMap:
            x = BatchNorm(self.training, name=f"{name}_bn")(x, train=train)
            return Relu(6.0, name=f"{name}_relu")(x)

        x = Conv(int(32 * self.alpha), (3, 3), (2, 2), use_bias=False, name="conv1")(x)
        x = norm(x, "conv1")
        for i, (filters, stride) in enumerate(BLOCKS, start=1):
            if stride == 2:
                x = ZeroPad(0, 1, name=f"conv_pad_{i}")(x)
            padding = "SAME" if stride == 1 else "VALID"
            x = norm(DepthwiseConv((stride, stride), padding, name=f"conv_dw_{i}")(x), f"conv_dw_{i}")
            x = Conv(int(filters * self.alpha), (1, 1), use_bias=False, name=f"conv_pw_{i}")(x)
            x = norm(x, f"conv_pw_{i}")
        return x


class ConvolutionalClassifier(nn.Module):
    """MobileNet's own way to 1000 logits: average over positions, dropout, a 1x1 convolution."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> Float[Array, "b 1000"]:
        x = GlobalAveragePool(keepdims=True, name="global_average_pooling2d")(x)
        x = Dropout(1e-3, self.training.axis_name, name="dropout")(x, train=train)
        return Flatten(name="reshape_2")(Conv(1000, (1, 1), name="conv_preds")(x))


def mobilenet(training: Training = Training(), *, imagenet: bool = False, alpha: float = 1.0) -> Network:
    """MobileNet: 4,804,290 parameters with alpha 1; its feature map of a 96x96 image is 3x3x1024."""
    classifier = ConvolutionalClassifier(training) if imagenet else FineTunedClassifier(training)
    return Network(MobileNet(alpha, training), classifier)
