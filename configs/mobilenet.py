"""MobileNet as the thesis fine-tunes it: 3 epochs of the head, then 50 of Adam 1e-5.

    python -m experiments.train --config=configs/mobilenet.py --workdir=runs/mobilenet \
      --config.data.path=data/pcam

Not measured with 50 epochs; 12 of them are in docs/results.md.
"""

from ml_collections import ConfigDict

from configs.pretrained import fine_tuned


def get_config() -> ConfigDict:
    return fine_tuned("mobilenet", {"name": "adam", "schedule": {"name": "constant", "learning_rate": 1e-5}})
