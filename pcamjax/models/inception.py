"""InceptionV3 with the layers and names of keras/src/applications/inception_v3.py (Szegedy et al., arXiv 1512.00567).

Keras numbers convolutions, normalisations, activations and pools in the order in which they are made, which the code
below keeps: `conv2d`, `conv2d_1`, ... Its BatchNorm has no scale.
"""

from collections import Counter
from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import AveragePool, BatchNorm, Concatenate, Conv, MaxPool, Relu, Training, numbered
from pcamjax.models.network import FineTunedClassifier, ImageNetClassifier, Network

FeatureMap = Float[Array, "b _ _ _"]
Layer = tuple[int, int, int]  # filters, height and width of a kernel


class InceptionV3(nn.Module):
    """A stem and eleven inception modules, mixed0 to mixed10: [B,96,96,3] -> [B,1,1,2048]."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> FeatureMap:
        made: Counter[str] = Counter()

        def name(stem: str) -> str:
            made[stem] += 1
            return numbered(stem, made[stem] - 1)

        def conv(x: FeatureMap, filters: int, height: int, width: int, stride: int = 1, padding: str = "SAME"
                 ) -> FeatureMap:
            x = Conv(filters, (height, width), (stride, stride), padding, use_bias=False, name=name("conv2d"))(x)
            x = BatchNorm(self.training, use_scale=False, name=name("batch_normalization"))(x, train=train)
            return Relu(name=name("activation"))(x)

        def chain(x: FeatureMap, *layers: Layer) -> FeatureMap:
            for filters, height, width in layers:
                x = conv(x, filters, height, width)
            return x

        def average(x: FeatureMap) -> FeatureMap:
            return AveragePool(3, 1, "SAME", name=name("average_pooling2d"))(x)

        def halve(x: FeatureMap) -> FeatureMap:
            return MaxPool(3, 2, name=name("max_pooling2d"))(x)

        x = conv(x, 32, 3, 3, 2, "VALID")
        x = conv(x, 32, 3, 3, 1, "VALID")
        x = halve(conv(x, 64, 3, 3))
        x = conv(x, 80, 1, 1, 1, "VALID")
        x = halve(conv(x, 192, 3, 3, 1, "VALID"))
        for i, pooled in enumerate((32, 64, 64)):
            x = Concatenate(name=f"mixed{i}")([
                conv(x, 64, 1, 1),
                chain(x, (48, 1, 1), (64, 5, 5)),
                chain(x, (64, 1, 1), (96, 3, 3), (96, 3, 3)),
                conv(average(x), pooled, 1, 1)])
        x = Concatenate(name="mixed3")([
            conv(x, 384, 3, 3, 2, "VALID"),
            conv(chain(x, (64, 1, 1), (96, 3, 3)), 96, 3, 3, 2, "VALID"),
            halve(x)])
        for i, f in enumerate((128, 160, 160, 192), start=4):
            x = Concatenate(name=f"mixed{i}")([
                conv(x, 192, 1, 1),
                chain(x, (f, 1, 1), (f, 1, 7), (192, 7, 1)),
                chain(x, (f, 1, 1), (f, 7, 1), (f, 1, 7), (f, 7, 1), (192, 1, 7)),
                conv(average(x), 192, 1, 1)])
        x = Concatenate(name="mixed8")([
            conv(conv(x, 192, 1, 1), 320, 3, 3, 2, "VALID"),
            conv(chain(x, (192, 1, 1), (192, 1, 7), (192, 7, 1)), 192, 3, 3, 2, "VALID"),
            halve(x)])
        for i in (0, 1):
            x = Concatenate(name=f"mixed{9 + i}")([
                conv(x, 320, 1, 1),
                fork(chain(x, (384, 1, 1)), chain, f"mixed9_{i}"),
                fork(chain(x, (448, 1, 1), (384, 3, 3)), chain, numbered("concatenate", i)),
                conv(average(x), 192, 1, 1)])
        return x


def fork(x: FeatureMap, chain: Callable[..., FeatureMap], name: str) -> FeatureMap:
    """A 1x3 and a 3x1 convolution of the same map, side by side: [B,H,W,C] -> [B,H,W,768]."""
    return Concatenate(name=name)([chain(x, (384, 1, 3)), chain(x, (384, 3, 1))])


def inception_v3(training: Training = Training(), *, imagenet: bool = False) -> Network:
    """InceptionV3: 24,426,786 parameters; its feature map of a 96x96 image is 1x1x2048, where a CAM is constant."""
    return Network(InceptionV3(training), ImageNetClassifier() if imagenet else FineTunedClassifier(training))
