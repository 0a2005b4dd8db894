"""VGG19 with the layers and names of keras/src/applications/vgg19.py (Simonyan and Zisserman, arXiv 1409.1556)."""

from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import Conv, Dense, Flatten, MaxPool, Training
from pcamjax.models.network import FineTunedClassifier, Network

# Convolutions and filters of the five blocks.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


class VGG19(nn.Module):
    """Sixteen 3x3 convolutions with ReLU, a max-pool after each of the five blocks: [B,96,96,3] -> [B,3,3,512]."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool) -> Float[Array, "b h2 w2 c"]:
        for i, (convolutions, filters) in enumerate(BLOCKS, start=1):
            for j in range(1, convolutions + 1):
                x = Conv(filters, (3, 3), activation=nn.relu, name=f"block{i}_conv{j}")(x)
            x = MaxPool(name=f"block{i}_pool")(x)
        return x


class ThreeDenseLayers(nn.Module):
    """VGG19's own way to 1000 logits, over the flattened map: its input must be 224x224."""

    @nn.compact
    def __call__(self, x: Float[Array, "b 7 7 512"], *, train: bool) -> Float[Array, "b 1000"]:
        x = Flatten(name="flatten")(x)
        x = Dense(4096, nn.relu, name="fc1")(x)
        x = Dense(4096, nn.relu, name="fc2")(x)
        return Dense(1000, name="predictions")(x)


def vgg19(training: Training = Training(), *, imagenet: bool = False) -> Network:
    """VGG19: 25,269,826 parameters for 96x96 images, whose feature map is 3x3x512."""
    return Network(VGG19(), ThreeDenseLayers() if imagenet else FineTunedClassifier(training, flatten=True))
