"""Train a network on a split of a store, or go on with a run that was stopped."""

from experiments import launch
from pcamjax.hosts import is_first
from pcamjax.report.page import write_report
from pcamjax.training.loop import fit


def run() -> None:
    config, folder = launch.new_config(), launch.workdir()
    patches, split = launch.open_split(config)
    record = fit(config, patches, split, folder)
    best = record["best"]
    print(f"{record['ended']} after {record['epochs']} epochs, {record['images_per_second']:.1f} images/s; best "
          f"{best['metric']} {best['value']:.4f} in epoch {best['epoch']}")
    if is_first():
        print(f"report: {write_report(folder.path)}")


if __name__ == "__main__":
    launch.main(run, several=True)
