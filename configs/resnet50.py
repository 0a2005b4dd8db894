"""ResNet50 as the thesis fine-tunes it: 3 epochs of the head, then 50 of Adamax 1e-3.

    python -m experiments.train --config=configs/resnet50.py --workdir=runs/resnet50 \
      --config.data.path=data/pcam

Not measured.
"""

from ml_collections import ConfigDict

from configs.pretrained import fine_tuned


def get_config() -> ConfigDict:
    return fine_tuned("resnet50", {"name": "adamax", "schedule": {"name": "constant", "learning_rate": 1e-3}})
