"""A network small enough to know its explanation: convolutions, average pooling, one dense layer."""

import jax
from flax import linen as nn


class Net(nn.Module):
    """With global average pooling the gradient of a logit is the dense kernel / (h * w), everywhere."""

    def setup(self):
        self.conv1 = nn.Conv(5, (3, 3), padding="VALID")
        self.conv2 = nn.Conv(4, (3, 3), padding="VALID")
        self.logits = nn.Dense(2)

    def features(self, x, *, train=False):
        return self.conv2(nn.relu(self.conv1(x)))

    def head(self, f, *, train=False):
        return self.logits(f.mean((1, 2)))

    def __call__(self, x, *, train=False):
        return self.head(self.features(x))


MODULE = Net()
X = jax.random.normal(jax.random.key(0), (3, 12, 10, 3))
VARIABLES = jax.jit(MODULE.init)(jax.random.key(1), X)
FEATURES = MODULE.apply(VARIABLES, X, method="features")
KERNEL = VARIABLES["params"]["logits"]["kernel"]
