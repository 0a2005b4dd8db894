"""Scratch #1 with a schedule that ends at rest: SGD 1e-2 with Nesterov momentum, warm-up, cosine, symmetries."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    # The symmetries need no interpolation, so training sees images as sharp as evaluation does.
    config.augmentation = {"symmetries": True, "flips": False, "rotation": 0.0, "zoom": 0.0, "shift": 0.0}
    config.epochs = 4
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = {"name": "cosine", "learning_rate": 1e-2, "warmup_steps": 200, "final_fraction": 0.0}
    return config
