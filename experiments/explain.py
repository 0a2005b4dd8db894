"""Draw Grad-CAM heat maps over patches of one part of a run's split, right and wrong calls alike."""

import numpy as np
from absl import flags

from experiments import launch
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.explain.explanations import Explanations, choose_examples
from pcamjax.explain.heat_maps import heat_maps
from pcamjax.inference.predict import Run, predict_split
from pcamjax.inference.predictions import Predictions
from pcamjax.models import model_spec
from pcamjax.report.page import write_report

NUM = flags.DEFINE_integer("num", 16, "How many patches to explain.", lower_bound=1)
LAYER = flags.DEFINE_string("layer", None, "The layer to look at, by its name; by default the network's feature map.")
TARGET = flags.DEFINE_enum("target", "1", ["1", "0", "margin"],
                           "What to explain: the logit of metastasis (1), of healthy (0), or their difference.")


def explain_run(trained: Run, patches: Patches, split: Split, part: str, count: int, *, target: int | str = 1,
                layer: str | None = None) -> Explanations:
    """Writes heat maps of `count` patches of a part of the split into the run's folder and returns them.

    Predictions that this checkpoint has already made of that part are used; otherwise they are made.
    """
    file = trained.folder.predictions(part)
    predictions = Predictions.load(file) if file.exists() else None
    if predictions is None or (predictions.meta["checkpoint"], predictions.meta["store_sha256"]) != (
            trained.checkpoint, patches.sha256) or not np.array_equal(predictions.ids, patches.ids[split.part(part)]):
        predictions = predict_split(trained, patches, split, part)
    rows = choose_examples(predictions.labels, predictions.scores, count, seed=trained.config.seed)
    images = patches.images[split.part(part)[rows]]
    maps, is_zero = heat_maps(trained, images, target=target, layer=layer)
    made = Explanations(images, maps, is_zero, predictions.ids[rows], predictions.labels[rows],
                        predictions.scores[rows], layer or model_spec(trained.config.model.name).cam_layer,
                        {1: "the logit of metastasis", 0: "the logit of healthy"}.get(target, "the logits' margin"),
                        "Grad-CAM")
    made.save(trained.folder.explanations(part))
    return made


def run() -> None:
    (trained, patches, split), part = launch.existing_run(), launch.SPLIT.value
    target = TARGET.value if TARGET.value == "margin" else int(TARGET.value)
    made = explain_run(trained, patches, split, part, NUM.value, target=target, layer=LAYER.value)
    print(f"{len(made.ids)} maps, {int(np.sum(made.is_zero))} of them zero: {trained.folder.explanations(part)}")
    print(f"report: {write_report(trained.folder.path)}")


if __name__ == "__main__":
    launch.main(run)
