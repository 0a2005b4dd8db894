"""Score a trained network on one part of its split: predictions, metrics and report."""

from experiments import launch
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.evaluation.metrics import Metrics, evaluate, evaluation_record
from pcamjax.files import write_json
from pcamjax.inference.predict import Run, predict_split
from pcamjax.inference.predictions import Predictions
from pcamjax.report.page import write_report
from pcamjax.report.tables import metric_table
from pcamjax.training.run import RunFolder


def evaluate_run(trained: Run, patches: Patches, split: Split, part: str) -> Metrics:
    """Writes predictions and metrics of a part of the split into the run's folder and returns the metrics."""
    patches.require_labels(split.part(part))
    return write_evaluation(trained.folder, part, predict_split(trained, patches, split, part))


def write_evaluation(folder: RunFolder, part: str, predictions: Predictions) -> Metrics:
    """Writes the predictions of a part and their metrics into a run's folder and returns the metrics."""
    record = evaluation_record(predictions)
    predictions.save(folder.predictions(part))
    write_json(folder.evaluation(part), record)
    return evaluate(predictions.labels, predictions.scores)


def run() -> None:
    (trained, patches, split), part = launch.existing_run(), launch.SPLIT.value
    metrics = evaluate_run(trained, patches, split, part)
    print(metric_table({part: metrics}))
    print(f"report: {write_report(trained.folder.path)}")


if __name__ == "__main__":
    launch.main(run)
