"""Compare run folders, networks and classical models: tables, figures and paired tests beside the thesis' values."""

from pathlib import Path

from absl import flags

from experiments import launch
from pcamjax.errors import InputError
from pcamjax.models.summary import layer_counts
from pcamjax.report.comparison import write_comparison

REFERENCE = flags.DEFINE_string("reference", None, "The run that the others are tested against, by the name of its "
                                "folder; by default the one with the best AUC.")


def run(folders: list[str]) -> None:
    if not launch.OUTPUT.value:
        raise InputError("--output is missing; name the folder for the comparison: --output=comparison")
    page = write_comparison(list(map(Path, folders)), Path(launch.OUTPUT.value), launch.SPLIT.value, REFERENCE.value,
                            layers=layer_counts)
    print(f"{len(folders)} runs compared on {launch.SPLIT.value}: {page}")


if __name__ == "__main__":
    launch.main(run)
