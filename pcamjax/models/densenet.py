"""DenseNet201 with the layers and names of keras/src/applications/densenet.py (Huang et al., arXiv 1608.06993)."""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import AveragePool, BatchNorm, Concatenate, Conv, MaxPool, Relu, Training, ZeroPad
from pcamjax.models.network import FineTunedClassifier, ImageNetClassifier, Network

FeatureMap = Float[Array, "b _ _ _"]
BLOCKS = (6, 12, 48, 32)  # layers of the four dense blocks, conv2 to conv5
GROWTH = 32  # channels that each layer adds
EPSILON = 1.001e-5


class DenseNet201(nn.Module):
    """Four dense blocks with transitions that halve channels and extent: [B,96,96,3] -> [B,3,3,1920]."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> FeatureMap:
        def norm(x: FeatureMap, name: str) -> FeatureMap:
            x = BatchNorm(self.training, EPSILON, name=f"{name}bn")(x, train=train)
            return Relu(name=f"{name}relu")(x)

        x = ZeroPad(3, 3, name="zero_padding2d")(x)
        x = norm(Conv(64, (7, 7), (2, 2), "VALID", use_bias=False, name="conv1_conv")(x), "conv1_")
        x = ZeroPad(1, 1, name="zero_padding2d_1")(x)
        x = MaxPool(3, 2, name="pool1")(x)
        for block, layers in enumerate(BLOCKS, start=2):
            for layer in range(1, layers + 1):
                name = f"conv{block}_block{layer}"
                y = Conv(4 * GROWTH, (1, 1), use_bias=False, name=f"{name}_1_conv")(norm(x, f"{name}_0_"))
                y = Conv(GROWTH, (3, 3), use_bias=False, name=f"{name}_2_conv")(norm(y, f"{name}_1_"))
                x = Concatenate(name=f"{name}_concat")([x, y])
            if block < 5:
                x = Conv(x.shape[-1] // 2, (1, 1), use_bias=False, name=f"pool{block}_conv")(norm(x, f"pool{block}_"))
                x = AveragePool(2, 2, name=f"pool{block}_pool")(x)
        return norm(x, "")


def densenet201(training: Training = Training(), *, imagenet: bool = False) -> Network:
    """DenseNet201: 20,814,914 parameters; its feature map of a 96x96 image is 3x3x1920."""
    return Network(DenseNet201(training), ImageNetClassifier() if imagenet else FineTunedClassifier(training))
