"""DenseNet201 as the thesis fine-tunes it: 3 epochs of the head, then 50 of SGD 1e-3 with 1/t decay and momentum.

    python -m experiments.train --config=configs/densenet201.py --workdir=runs/densenet201 \
      --config.data.path=data/pcam

Not measured.
"""

from ml_collections import ConfigDict

from configs.pretrained import DECAYING_SGD, fine_tuned


def get_config() -> ConfigDict:
    return fine_tuned("densenet201", DECAYING_SGD)
