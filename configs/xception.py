"""Xception as the thesis fine-tunes it: 3 epochs of the head, then 50 of Nadam 1e-4.

    python -m experiments.train --config=configs/xception.py --workdir=runs/xception \
      --config.data.path=data/pcam

Not measured.
"""

from ml_collections import ConfigDict

from configs.pretrained import fine_tuned


def get_config() -> ConfigDict:
    return fine_tuned("xception", {"name": "nadam", "schedule": {"name": "constant", "learning_rate": 1e-4}})
