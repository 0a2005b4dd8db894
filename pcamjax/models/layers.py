"""The few layers that all networks share, with Keras' defaults and one feature map behind every name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.ops.convolution import convolve, max_pool
from pcamjax.ops.positions import keys_by_position

Activation = Callable[[Array], Array]


class Conv(nn.Module):
    """Convolution with bias, then `activation`: [B,H,W,C] -> [B,H',W',filters] (Keras' Conv2D)."""

    filters: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    activation: Activation | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        shape = (*self.kernel_size, x.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        y = convolve(x, kernel, strides=self.strides, padding=self.padding) + bias.reshape(1, 1, 1, -1)
        return y if self.activation is None else self.activation(y)


class Dense(nn.Module):
    """Fully connected layer, then `activation`: [B,C] -> [B,units] (Keras' Dense)."""

    units: int
    activation: Activation | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b u"]:
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.units))
        bias = self.param("bias", nn.initializers.zeros, (self.units,))
        y = x @ kernel + bias[None, :]
        return y if self.activation is None else self.activation(y)


class BatchNorm(nn.Module):
    """Normalisation by the moments of the global batch while training, by stored ones otherwise.

    `momentum` is the weight of the old moving average (Keras' and Flax' sense), `axis_name` the mapped axis that
    splits the global batch. The defaults are Keras' (keras/src/layers/normalization/batch_normalization.py).
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        normalise = nn.BatchNorm(use_running_average=not train, momentum=self.momentum, epsilon=self.epsilon,
                                 axis_name=None if self.is_initializing() else self.axis_name)
        nn.share_scope(self, normalise)
        return normalise(x)


class Dropout(nn.Module):
    """Zeroes each value with probability `rate` while training and scales the rest by 1 / (1 - rate).

    The draws go by an example's position in the global batch, so that they do not depend on the number of devices.
    """

    rate: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool) -> Float[Array, "b ..."]:
        if not train:
            return x
        keys = keys_by_position(self.make_rng("dropout"), x.shape[0], self.axis_name)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1 - self.rate), 0)


class Relu(nn.Module):
    """max(x, 0), as a layer of its own so that its map can be reached by name."""

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return nn.relu(x)


class MaxPool(nn.Module):
    """Maximum over windows: [B,H,W,C] -> [B,H',W',C] (Keras' MaxPooling2D)."""

    window: int = 2
    stride: int = 2
    padding: str = "VALID"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        if self.stride == self.window and self.padding == "VALID":
            return max_pool(x, window=self.window)
        return nn.max_pool(x, (self.window, self.window), (self.stride, self.stride), self.padding)
