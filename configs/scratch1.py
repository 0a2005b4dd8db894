"""Scratch #1 as the thesis trains it: SGD 1e-3 with Nesterov momentum, 50 epochs of batch 32."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    return default.get_config()
