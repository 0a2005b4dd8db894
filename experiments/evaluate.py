"""Score a trained network on one part of its split: predictions, metrics and report."""

from typing import Any

from experiments import launch
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.evaluation.assessment import assess
from pcamjax.evaluation.metrics import Metrics, evaluate, evaluation_record
from pcamjax.evaluation.validation import require_same_model
from pcamjax.files import read_json, write_json
from pcamjax.hosts import is_first, several
from pcamjax.inference.predict import Run, measured_predictions
from pcamjax.inference.predictions import Predictions
from pcamjax.meter import Meter
from pcamjax.report.page import write_report
from pcamjax.report.tables import interval_table, metric_table
from pcamjax.training.run import RunFolder


def evaluate_run(trained: Run, patches: Patches, split: Split, part: str, *, symmetries: bool = False
                 ) -> Metrics | None:
    """Writes predictions and metrics of a part of the split into the run's folder and returns the metrics.

    Of several processes, which all call it, the first one does so, the others return None.
    """
    patches.require_labels(split.part(part))
    # In several processes energy would be that of this host alone.
    meter = Meter("" if several() else trained.config.carbon.country)
    predictions, cost = measured_predictions(trained, patches, split, part, symmetries=symmetries, meter=meter)
    return write_evaluation(trained.folder, part, predictions, cost) if is_first() else None


def write_evaluation(folder: RunFolder, part: str, predictions: Predictions, cost: dict[str, Any]) -> Metrics:
    """Writes the predictions of a part, what they are worth and what they cost into a run's folder and returns the
    metrics."""
    record = evaluation_record(predictions) | {"assessment": assess(predictions, _validation(folder, predictions)),
                                               "cost": cost}
    predictions.save(folder.predictions(part))
    write_json(folder.evaluation(part), record)
    return evaluate(predictions.labels, predictions.scores)


def _validation(folder: RunFolder, predictions: Predictions) -> Predictions | None:
    """The validation part's predictions by the same model, if there are any in the run's folder."""
    if not folder.predictions("valid").exists():
        return None
    valid = Predictions.load(folder.predictions("valid"))
    try:
        require_same_model(valid.meta, predictions, "validation")
    except InputError:
        return None  # an earlier checkpoint's
    return valid


def run() -> None:
    (trained, patches, split), part = launch.existing_run(), launch.SPLIT.value
    with trained.folder.lock("results"):
        metrics = evaluate_run(trained, patches, split, part, symmetries=launch.SYMMETRIES.value)
    if metrics is None:  # the first of several processes has them
        return
    print(metric_table({part: metrics}))
    print(interval_table(read_json(trained.folder.evaluation(part))["assessment"]))
    print(f"report: {write_report(trained.folder.path)}")


if __name__ == "__main__":
    launch.main(run, several=True)
