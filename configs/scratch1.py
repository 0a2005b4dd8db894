"""Scratch #1 as the thesis trains it: SGD 1e-3 with Nesterov momentum, 50 epochs of batch 32.

    python -m experiments.train --config=configs/scratch1.py --workdir=runs/scratch1 --config.data.path=data/pcam

Not measured as it stands; five of its epochs on 8,000 patches are in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    return default.get_config()
