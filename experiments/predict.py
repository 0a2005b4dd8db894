"""Predict patches, labelled or not, and write a CSV with a score each."""

from pathlib import Path

from absl import flags

from experiments import launch
from pcamjax.hosts import is_first
from pcamjax.inference.predict import predict_split

KAGGLE = flags.DEFINE_bool("kaggle", False, "Name the columns id,label, as Kaggle's submission form does.")


def run() -> None:
    (trained, patches, split), part = launch.existing_run(), launch.SPLIT.value
    with trained.folder.lock("results"):
        predictions = predict_split(trained, patches, split, part, symmetries=launch.SYMMETRIES.value)
        if not is_first():  # all have the predictions, one writes them
            return
        file = trained.folder.predictions(part)
        if not trained.folder.evaluation(part).exists():  # whose metrics are those of the predictions beside it
            predictions.save(file)
        output = Path(launch.OUTPUT.value or file.with_suffix(".csv"))
        predictions.write_csv(output, ("id", "label") if KAGGLE.value else ("id", "score"))
    print(f"{len(predictions)} patches: {output}")


if __name__ == "__main__":
    launch.main(run, several=True)
