"""What every network is: a backbone that makes a feature map and a classifier that reads it."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.models.layers import Dense, Dropout, Flatten, GlobalAveragePool, Training


class Network(nn.Module):
    """A backbone, which maps pixels to a feature map, and a classifier, which maps that to two logits.

    The two halves are what Grad-CAM needs: it differentiates `head` at the output of `features`.
    """

    backbone: nn.Module
    classifier: nn.Module

    def features(self, x: Float[Array, "b h w 3"], *, train: bool = False) -> Float[Array, "b h2 w2 c"]:
        """The feature map [B,h,w,C] of preprocessed images [B,H,W,3]."""
        return self.backbone(x, train=train)

    def head(self, feature_map: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b classes"]:
        """The logits [B,2] of a feature map; column 0 is healthy, column 1 metastasis (ImageNet's: [B,1000])."""
        return self.classifier(feature_map, train=train)

    def __call__(self, x: Float[Array, "b h w 3"], *, train: bool = False) -> Float[Array, "b classes"]:
        """The logits [B,2] of preprocessed images [B,H,W,3]: `head` of `features`."""
        return self.head(self.features(x, train=train), train=train)


class HiddenLayers(nn.Module):
    """Dense layers of `units` with ReLU and dropout, then a dense layer to two logits: [B,C] -> [B,2].

    `dropout_rates[i]` follows the i-th hidden layer; 0 means none there.
    """

    units: tuple[int, ...]
    dropout_rates: tuple[float, ...]
    training: Training = Training()

    @nn.compact
    def __call__(self, x: Float[Array, "b c"], *, train: bool) -> Float[Array, "b 2"]:
        for i, (units, rate) in enumerate(zip(self.units, self.dropout_rates, strict=True), start=1):
            x = Dense(units, nn.relu, name=f"dense{i}")(x)
            if rate:
                x = Dropout(rate, self.training.axis_name, name=f"dense{i}_dropout")(x, train=train)
        # Of so few numbers every digit counts: in bfloat16 many patches would share a score.
        return Dense(2, name="logits")(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class FineTunedClassifier(nn.Module):
    """What the thesis puts on all six pre-trained backbones: pooling, then hidden layers of 1024 and 512 units.

    With `flatten` the map is not averaged over positions but read whole, as for VGG19.
    """

    training: Training = Training()
    flatten: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b 2"]:
        x = Flatten(name="flatten")(x) if self.flatten else GlobalAveragePool(name="avg_pool")(x)
        return HiddenLayers((1024, 512), (0.2, 0.2), self.training, name="hidden")(x, train=train)


class ImageNetClassifier(nn.Module):
    """Average over positions and one dense layer to the logits of ImageNet's 1000 classes: [B,h,w,C] -> [B,1000]."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b 1000"]:
        return Dense(1000, name="predictions")(GlobalAveragePool(name="avg_pool")(x))
