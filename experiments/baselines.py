"""Fit k-NN, SVM or a random forest on colour histograms or a network's features, chosen by validation, and score it."""

from experiments import launch
from experiments.evaluate import write_evaluation
from pcamjax.baselines.baseline import fit_baseline
from pcamjax.files import read_json
from pcamjax.meter import Meter
from pcamjax.report.page import write_report
from pcamjax.report.tables import metric_table


def run() -> None:
    config, folder = launch.new_config(), launch.workdir()
    patches, split = launch.open_split(config)
    parts = list(dict.fromkeys(("valid", launch.SPLIT.value)))
    for part in parts:
        patches.require_labels(split.part(part))
    baseline = fit_baseline(config, patches, split, folder)
    meter = Meter(config.carbon.country)
    with folder.lock("results"):
        metrics = {part: write_evaluation(folder, part, *baseline.measured_predictions(patches, split, part, meter))
                   for part in parts}
    fitting, prediction = baseline.record["cost"], read_json(folder.evaluation(launch.SPLIT.value))["cost"]
    print(metric_table(metrics))
    print(f"{baseline.record['model']}: {fitting['train_ms_per_image']:.2f} ms an image to fit, "
          f"{prediction['test_ms_per_image']:.2f} to predict")
    print(f"report: {write_report(folder.path)}")


if __name__ == "__main__":
    launch.main(run, config="configs/baselines.py")
