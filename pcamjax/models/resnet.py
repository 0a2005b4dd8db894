"""ResNet50 with the layers and names of keras/src/applications/resnet.py (He et al., arXiv 1512.03385)."""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import Add, BatchNorm, Conv, MaxPool, Relu, Training, ZeroPad
from pcamjax.models.network import FineTunedClassifier, ImageNetClassifier, Network

FeatureMap = Float[Array, "b _ _ _"]
# Filters and number of blocks of the four stages, conv2 to conv5.
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
EPSILON = 1.001e-5


class ResNet50(nn.Module):
    """A strided stem and sixteen bottleneck blocks, strided in their first 1x1: [B,96,96,3] -> [B,3,3,2048]."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> FeatureMap:
        x = ZeroPad(3, 3, name="conv1_pad")(x)
        x = Conv(64, (7, 7), (2, 2), "VALID", name="conv1_conv")(x)
        x = BatchNorm(self.training, EPSILON, name="conv1_bn")(x, train=train)
        x = Relu(name="conv1_relu")(x)
        x = ZeroPad(1, 1, name="pool1_pad")(x)
        x = MaxPool(3, 2, name="pool1_pool")(x)
        for stage, (filters, blocks) in enumerate(STAGES, start=2):
            for block in range(1, blocks + 1):
                stride = 2 if block == 1 and stage > 2 else 1
                x = self._block(x, filters, stride, f"conv{stage}_block{block}", block == 1, train)
        return x

    def _block(self, x: FeatureMap, filters: int, stride: int, name: str, widen: bool, train: bool) -> FeatureMap:
        """1x1, 3x3, 1x1, added to the input, or with `widen` to a 1x1 of it: -> [B,H/stride,W/stride,4*filters]."""
        def conv(x: FeatureMap, filters: int, size: int, stride: int, part: int) -> FeatureMap:
            x = Conv(filters, (size, size), (stride, stride), name=f"{name}_{part}_conv")(x)
            return BatchNorm(self.training, EPSILON, name=f"{name}_{part}_bn")(x, train=train)

        shortcut = conv(x, 4 * filters, 1, stride, 0) if widen else x
        x = Relu(name=f"{name}_1_relu")(conv(x, filters, 1, stride, 1))
        x = Relu(name=f"{name}_2_relu")(conv(x, filters, 3, 1, 2))
        x = Add(name=f"{name}_add")(shortcut, conv(x, 4 * filters, 1, 1, 3))
        return Relu(name=f"{name}_out")(x)


def resnet50(training: Training = Training(), *, imagenet: bool = False) -> Network:
    """ResNet50: 26,211,714 parameters; its feature map of a 96x96 image is 3x3x2048."""
    return Network(ResNet50(training), ImageNetClassifier() if imagenet else FineTunedClassifier(training))
