"""DenseNet201 as the thesis fine-tunes it: 3 epochs of the head, then 50 of SGD 1e-3 with 1/t decay and momentum.

    python -m experiments.train --config=configs/densenet201.py --workdir=runs/densenet201 \
      --config.data.path=data/pcam

Not measured.
"""

from ml_collections import ConfigDict

from configs.pretrained import fine_tuned


def get_config() -> ConfigDict:
    return fine_tuned("densenet201", {"name": "sgd", "momentum": 0.9, "nesterov": False,
                                      "schedule": {"name": "inverse_time", "learning_rate": 1e-3, "decay": 1e-3 / 50}})
