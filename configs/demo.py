"""The demonstration: scratch #1 on synthetic patches, minutes on a CPU; `make demo`."""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    with config.unlocked():
        config.synthetic = {"train": 2400, "valid": 250, "test": 1000}  # patches to make
    config.augmentation = {"symmetries": True, "flips": False, "rotation": 0.0, "zoom": 0.0, "shift": 0.0}
    config.epochs = 2
    # 150 steps are too few for moving statistics of momentum 0.99 to forget where they started.
    config.model.batch_norm_momentum = 0.9
    config.optimizer = {"name": "adam", "clip_norm": 1.0}
    config.optimizer.schedule = {"name": "cosine", "learning_rate": 1e-3, "warmup_steps": 10, "final_fraction": 0.0}
    return config
