"""Scratch #3 as the thesis trains it: Adam 1e-4, 50 epochs of batch 32.

    python -m experiments.train --config=configs/scratch3.py --workdir=runs/scratch3 --config.data.path=data/pcam

Not measured.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.name = "scratch3"
    config.optimizer = {"name": "adam", "clip_norm": 0.0, "schedule": {"name": "constant", "learning_rate": 1e-4}}
    return config
