"""Has Keras describe its network of a case, which others translate: python -m ... <folder> <case>."""

import sys
from pathlib import Path

from pcamjax.benchmark.material import Case
from pcamjax.benchmark.peers.keras_networks import whole_network
from pcamjax.files import write_json


def describe(folder: Path, case: Case) -> None:
    """Writes `network.json` if the case has a network."""
    if case.network:
        write_json(folder / "network.json", whole_network(case.network).get_config())


if __name__ == "__main__":
    describe(Path(sys.argv[1]), Case.from_json(sys.argv[2]))
