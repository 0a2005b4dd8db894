"""The few layers that all networks share, with Keras' defaults and one feature map behind every name.

A layer computes in the dtype of its input, whatever that of its parameters and statistics is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from pcamjax.ops.convolution import convolve, convolve_depthwise
from pcamjax.ops.materialised import materialised
from pcamjax.ops.pooling import average_pool, max_pool
from pcamjax.ops.positions import keys_by_position
from pcamjax.ops.statistics import moments, normalise

Activation = Callable[[Array], Array]

# The name that convolutions give to what they put out, before bias and activation: all that need be kept of a forward
# pass, for the rest is computed from it in a moment.
MAPS = "convolution"


@dataclass(frozen=True)
class Training:
    """How a network is trained, as far as its layers have to know.

    Attributes:
      axis_name: the mapped axis that splits the global batch; None is one piece.
      batch_norm_momentum: the weight of the old moving average (Keras' and Flax' sense).
      frozen: names of layers that are not trained. A BatchNorm among them normalises by its stored statistics.
    """

    axis_name: str | None = None
    batch_norm_momentum: float = 0.99
    frozen: frozenset[str] = frozenset()


class Conv(nn.Module):
    """Convolution, then `activation`: [B,H,W,C] -> [B,H',W',filters] (Keras' Conv2D)."""

    filters: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"
    activation: Activation | None = None
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        shape = (*self.kernel_size, x.shape[-1], self.filters)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        y = checkpoint_name(convolve(x, kernel.astype(x.dtype), strides=self.strides, padding=self.padding), MAPS)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.filters,)).astype(x.dtype).reshape(1, 1, 1, -1)
            if self.activation is None:  # BatchNorm follows; while it is trained it reads the map four times
                y = materialised(y)
        return y if self.activation is None else self.activation(y)


class DepthwiseConv(nn.Module):
    """3x3 convolution of each channel by itself, without bias: [B,H,W,C] -> [B,H',W',C] (Keras' DepthwiseConv2D)."""

    strides: tuple[int, int] = (1, 1)
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel = self.param("depthwise_kernel", _depthwise_glorot, (3, 3, 1, x.shape[-1]))
        y = convolve_depthwise(x, kernel.astype(x.dtype), strides=self.strides, padding=self.padding)
        return checkpoint_name(y, MAPS)


class SeparableConv(nn.Module):
    """3x3 depthwise, then 1x1 convolution, without bias: [B,H,W,C] -> [B,H,W,filters] (Keras' SeparableConv2D)."""

    filters: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        depthwise = self.param("depthwise_kernel", _depthwise_glorot, (3, 3, 1, x.shape[-1]))
        pointwise = self.param("pointwise_kernel", nn.initializers.glorot_uniform(),
                               (1, 1, x.shape[-1], self.filters))
        x = checkpoint_name(convolve_depthwise(x, depthwise.astype(x.dtype), padding="SAME"), MAPS)
        return checkpoint_name(convolve(x, pointwise.astype(x.dtype), padding="SAME"), MAPS)


def _depthwise_glorot(key: Array, shape: tuple[int, ...], dtype: type = float) -> Array:
    """Glorot's uniform draw with the fans that Keras counts for a kernel (h,w,C,1): h*w*C in, h*w out."""
    height, width, _, channels = shape
    limit = (6 / (height * width * (channels + 1))) ** 0.5
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class Dense(nn.Module):
    """Fully connected layer, then `activation`: [B,C] -> [B,units] (Keras' Dense)."""

    units: int
    activation: Activation | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b u"]:
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.units))
        bias = self.param("bias", nn.initializers.zeros, (self.units,))
        y = x @ kernel.astype(x.dtype) + bias.astype(x.dtype)[None, :]
        return y if self.activation is None else self.activation(y)


class BatchNorm(nn.Module):
    """Normalisation by the moments of the global batch while it is trained, by stored ones otherwise.

    The defaults are Keras' (keras/src/layers/normalization/batch_normalization.py).
    """

    training: Training = Training()
    epsilon: float = 1e-3
    use_scale: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        wide, shape = x.astype(jnp.promote_types(x.dtype, jnp.float32)), ((x.shape[-1],), jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, *shape)
        var = self.variable("batch_stats", "var", jnp.ones, *shape)
        scale = self.param("scale", nn.initializers.ones, *shape) if self.use_scale else jnp.ones(*shape)
        bias = self.param("bias", nn.initializers.zeros, *shape)
        if not train or self.name in self.training.frozen:
            return normalise(wide, mean.value, scale * lax.rsqrt(var.value + self.epsilon), bias).astype(x.dtype)
        now, axis = moments(wide), self.training.axis_name
        if axis and not self.is_initializing():  # in one meeting, if there are others to meet
            now = lax.pmean(jnp.stack(now) if lax.axis_size(axis) > 1 else now, axis)
        mean_now, square_now = now
        var_now = jnp.maximum(square_now - mean_now**2, 0)
        if not self.is_initializing():
            momentum = self.training.batch_norm_momentum
            mean.value = momentum * mean.value + (1 - momentum) * mean_now
            var.value = momentum * var.value + (1 - momentum) * var_now
        return normalise(wide, mean_now, scale * lax.rsqrt(var_now + self.epsilon), bias).astype(x.dtype)


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
    """max(x, 0), cut at `maximum` if there is one; a layer of its own so that its map can be reached by name."""

    maximum: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return nn.relu(x) if self.maximum is None else jnp.clip(x, 0, self.maximum)


class ZeroPad(nn.Module):
    """Zeros around: [B,H,W,C] -> [B,before+H+after,before+W+after,C] (Keras' ZeroPadding2D)."""

    before: int
    after: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        sides = (self.before, self.after, 0)
        return lax.pad(x, np.zeros((), x.dtype), ((0, 0, 0), sides, sides, (0, 0, 0)))


class Add(nn.Module):
    """The sum of two maps of one shape."""

    @nn.compact
    def __call__(self, x: Float[Array, "*s"], y: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return x + y


class Concatenate(nn.Module):
    """Maps side by side along the channels: [B,H,W,C1], [B,H,W,C2], ... -> [B,H,W,C1+C2+...]."""

    @nn.compact
    def __call__(self, maps: Sequence[Float[Array, "b h w _"]]) -> Float[Array, "b h w c"]:
        return jnp.concatenate(maps, axis=-1)


class GlobalAveragePool(nn.Module):
    """The mean over positions: [B,H,W,C] -> [B,C], or [B,1,1,C] with `keepdims`."""

    keepdims: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b ..."]:
        return x.mean((1, 2), keepdims=self.keepdims)


class Flatten(nn.Module):
    """All values of an example in one row: [B,H,W,C] -> [B,H*W*C]."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        return x.reshape(x.shape[0], -1)


class AveragePool(nn.Module):
    """Mean over windows, padding left out of it: [B,H,W,C] -> [B,H',W',C] (Keras' AveragePooling2D)."""

    window: int
    stride: int
    padding: str = "VALID"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return average_pool(x, window=self.window, stride=self.stride, padding=self.padding)


class MaxPool(nn.Module):
    """Maximum over windows: [B,H,W,C] -> [B,H',W',C] (Keras' MaxPooling2D)."""

    window: int = 2
    stride: int = 2
    padding: str = "VALID"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        return max_pool(x, window=self.window, stride=self.stride, padding=self.padding)


def numbered(stem: str, index: int) -> str:
    """The name that Keras gives to the layer `index` (from 0) of a kind: conv2d, conv2d_1, ..."""
    return f"{stem}_{index}" if index else stem
