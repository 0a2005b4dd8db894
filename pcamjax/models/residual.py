"""Scratch #2 and #3 of the thesis: bottleneck residual blocks, in #3 with inception modules in the first."""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import Add, BatchNorm, Concatenate, Conv, Dropout, GlobalAveragePool, MaxPool, Relu, Training
from pcamjax.models.network import HiddenLayers, Network

FeatureMap = Float[Array, "b _ _ _"]


class ResidualBlocks(nn.Module):
    """Bottleneck blocks with max-pool and dropout between them: [B,96,96,3] -> [B,3,3,4096].

    The pool and the dropout after the last block belong to the classifier, so that the feature map is the last one
    with an extent to explain. `inception_blocks` is how many of the first blocks use inception modules.
    """

    filters: tuple[int, ...] = (32, 64, 128, 256, 512, 1024)
    inception_blocks: int = 0
    training: Training = Training()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> FeatureMap:
        for i, filters in enumerate(self.filters, start=1):
            if i > 1:
                x = MaxPool(name=f"block{i - 1}_pool")(x)
                x = Dropout(0.25, self.training.axis_name, name=f"block{i - 1}_dropout")(x, train=train)
            x = self._block(x, filters, f"block{i}", i <= self.inception_blocks, train)
        return x

    def _block(self, x: FeatureMap, filters: int, name: str, inception: bool, train: bool) -> FeatureMap:
        """1x1, 3x3, 1x1 beside a 1x1 shortcut, BN after each, added, ReLU: [B,H,W,C] -> [B,H,W,4*filters].

        With `inception` each of the four convolutions becomes an inception module, four times as wide.
        """
        def transform(x: FeatureMap, filters: int, size: int, name: str) -> FeatureMap:
            x = inception_module(x, filters, name) if inception else Conv(filters, (size, size), name=f"{name}_conv")(x)
            return BatchNorm(self.training, name=f"{name}_bn")(x, train=train)

        y = Relu(name=f"{name}_1_relu")(transform(x, filters, 1, f"{name}_1"))
        y = Relu(name=f"{name}_2_relu")(transform(y, filters, 3, f"{name}_2"))
        y = transform(y, 4 * filters, 1, f"{name}_3")
        y = Add(name=f"{name}_add")(y, transform(x, 4 * filters, 1, f"{name}_0"))
        return Relu(name=f"{name}_out")(y)


def inception_module(x: FeatureMap, filters: int, name: str) -> FeatureMap:
    """Four parallel paths, concatenated: [B,H,W,C] -> [B,H,W,4*filters]; ReLU after every convolution.

    1x1; 1x1 with half the filters, then 3x3; the same, then 5x5; max-pool 3x3, then 1x1. Called inside a compact
    method, whose module then owns the layers `<name>_path...`.
    """
    def conv(x: FeatureMap, filters: int, size: int, path: str) -> FeatureMap:
        return Conv(filters, (size, size), activation=nn.relu, name=f"{name}_{path}_{size}x{size}")(x)

    return Concatenate(name=f"{name}_concat")([
        conv(x, filters, 1, "path1"),
        conv(conv(x, filters // 2, 1, "path2"), filters, 3, "path2"),
        conv(conv(x, filters // 2, 1, "path3"), filters, 5, "path3"),
        conv(MaxPool(3, 1, "SAME", name=f"{name}_path4_pool")(x), filters, 1, "path4"),
    ])


class PooledClassifier(nn.Module):
    """The last block's pool and dropout, global average pooling and the hidden layers (512, 128)."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: FeatureMap, *, train: bool) -> Float[Array, "b 2"]:
        x = MaxPool(name="block6_pool")(x)
        x = Dropout(0.25, self.training.axis_name, name="block6_dropout")(x, train=train)
        x = GlobalAveragePool(name="avg_pool")(x)
        return HiddenLayers((512, 128), (0.25, 0.0), self.training, name="hidden")(x, train=train)


def scratch2(training: Training = Training()) -> Network:
    """Scratch #2: six residual blocks, 34,403,106 parameters; its feature map is 3x3x4096."""
    return Network(ResidualBlocks(training=training), PooledClassifier(training))


def scratch3(training: Training = Training()) -> Network:
    """Scratch #3: #2 with inception modules in block 1, 35,172,066 parameters; its feature map is 3x3x4096."""
    return Network(ResidualBlocks(inception_blocks=1, training=training), PooledClassifier(training))
