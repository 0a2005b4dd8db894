"""Draw heat maps over patches of one part of a run's split, right and wrong calls alike, by one or more methods."""

from collections.abc import Sequence

import numpy as np
from absl import flags

from experiments import launch
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.explain.explanations import Explanations, choose_examples
from pcamjax.explain.heat_maps import heat_maps
from pcamjax.explain.methods import METHODS, find_method
from pcamjax.explain.targets import DIFFERENCES
from pcamjax.files import write_json
from pcamjax.inference.predict import Run, predict_split
from pcamjax.inference.predictions import Predictions
from pcamjax.models import model_spec
from pcamjax.report.page import write_report

NUM = flags.DEFINE_integer("num", 16, "How many patches to explain.", lower_bound=1)
METHOD_NAMES = flags.DEFINE_list("methods", ["grad_cam"], f"How, of {', '.join(METHODS)}; or all.")
LAYERS = flags.DEFINE_list("layers", [], "The layer to look at, by its name, or several to average; by default the "
                           "network's feature map.")
TARGET = flags.DEFINE_enum("target", "1", ["1", "0", *DIFFERENCES], "What to explain: the logit of metastasis (1), of "
                           "healthy (0), their difference (margin) or the score (probability).")
TARGETS = {1: "the logit of metastasis", 0: "the logit of healthy", "margin": "the logits' margin",
           "probability": "the score"}


def explain_run(trained: Run, patches: Patches, split: Split, part: str, count: int, *,
                methods: Sequence[str] = ("grad_cam",), target: int | str = 1, layers: Sequence[str] = ()
                ) -> Explanations:
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
    made = [heat_maps(trained, images, method=method, target=target, layers=layers) for method in methods]
    explanations = Explanations(
        images, np.stack([maps for maps, _ in made]), np.stack([peaks for _, peaks in made]), np.array(methods),
        predictions.ids[rows], predictions.labels[rows], predictions.scores[rows],
        " and ".join(layers or [model_spec(trained.config.model.name).cam_layer]), TARGETS[target], trained.checkpoint)
    explanations.save(trained.folder.explanations(part))
    write_json(trained.folder.explanations(part).with_suffix(".json"), explanations.records())
    return explanations


def chosen_methods() -> list[str]:
    """The methods of --methods.

    Raises:
      InputError: there is none, or one that is not known.
    """
    names = list(METHODS) if METHOD_NAMES.value == ["all"] else METHOD_NAMES.value
    if not names:
        raise InputError(f"--methods=: choose of {', '.join(METHODS)}, or all")
    for name in names:
        find_method(name)
    return names


def run() -> None:
    methods = chosen_methods()
    (trained, patches, split), part = launch.existing_run(), launch.SPLIT.value
    target = int(TARGET.value) if TARGET.value.isdecimal() else TARGET.value
    made = explain_run(trained, patches, split, part, NUM.value, methods=methods, target=target, layers=LAYERS.value)
    for method, peaks in zip(made.methods, made.peaks, strict=True):
        print(f"{METHODS[method].title}: {len(peaks)} maps, {int(np.sum(peaks == 0))} of them zero")
    print(f"maps: {trained.folder.explanations(part)}\nreport: {write_report(trained.folder.path)}")


if __name__ == "__main__":
    launch.main(run)
