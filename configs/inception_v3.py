"""InceptionV3 as the thesis fine-tunes it: 3 epochs of the head, then 50 of SGD 1e-4 with Nesterov momentum.

    python -m experiments.train --config=configs/inception_v3.py --workdir=runs/inception_v3 \
      --config.data.path=data/pcam

Not measured.
"""

from ml_collections import ConfigDict

from configs.pretrained import fine_tuned


def get_config() -> ConfigDict:
    return fine_tuned("inception_v3", {"name": "sgd", "momentum": 0.9, "nesterov": True,
                                       "schedule": {"name": "constant", "learning_rate": 1e-4}})
