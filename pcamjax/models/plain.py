"""Scratch #1 of the thesis: three blocks of plain convolutions and a dense classifier."""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import BatchNorm, Conv, Dropout, Flatten, MaxPool, Training
from pcamjax.models.network import HiddenLayers, Network


class PlainBlocks(nn.Module):
    """[conv 3x3, ReLU, BN] twice, max-pool, dropout; once per entry of `filters`: [B,96,96,3] -> [B,8,8,128]."""

    filters: tuple[int, ...] = (32, 64, 128)
    training: Training = Training()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b h2 w2 c"]:
        for i, filters in enumerate(self.filters, start=1):
            for j in (1, 2):
                x = Conv(filters, (3, 3), padding="VALID", activation=nn.relu, name=f"block{i}_conv{j}")(x)
                x = BatchNorm(self.training, name=f"block{i}_bn{j}")(x, train=train)
            x = MaxPool(name=f"block{i}_pool")(x)
            x = Dropout(0.25, self.training.axis_name, name=f"block{i}_dropout")(x, train=train)
        return x


class FlatClassifier(nn.Module):
    """Flatten, then the hidden layers of 512 and 128 units that all three scratch networks end in."""

    training: Training = Training()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b 2"]:
        x = Flatten(name="flatten")(x)
        return HiddenLayers((512, 128), (0.25, 0.0), self.training, name="hidden")(x, train=train)


def scratch1(training: Training = Training()) -> Network:
    """Scratch #1: 4,549,538 parameters; its feature map is 8x8x128."""
    return Network(PlainBlocks(training=training), FlatClassifier(training))
