"""What the six fine-tuned networks share: ImageNet's weights, 3 epochs of the classifier alone, then 50 of the rest.

Not an experiment of its own.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import default

# What the thesis trains VGG19 and DenseNet201 with.
DECAYING_SGD = {"name": "sgd", "momentum": 0.9, "nesterov": False,
                "schedule": {"name": "inverse_time", "learning_rate": 1e-3, "decay": 1e-3 / 50}}


def fine_tuned(name: str, optimizer: dict[str, Any]) -> ConfigDict:
    """The thesis' recipe for a network: its layers frozen up to the thesis' boundary, trained with `optimizer`."""
    config = default.get_config()
    config.model.name = name
    config.model.weights = "imagenet"
    config.model.frozen = "thesis"
    config.head.epochs = 3
    config.optimizer = {"clip_norm": 0.0, **optimizer}
    return config
