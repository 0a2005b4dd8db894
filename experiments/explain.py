"""Draw heat maps over patches of one part of a run's split, right and wrong calls alike, by one or more methods."""

from collections.abc import Sequence

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments import launch
from pcamjax.data.sources.synthetic import masks_of
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.explain.comparison import compare_methods
from pcamjax.explain.explanations import Explanations, choose_examples
from pcamjax.explain.heat_maps import heat_maps, raw_maps, scorer
from pcamjax.explain.localisation import nest_groups
from pcamjax.explain.method_table import markdown, write_method_table
from pcamjax.explain.methods import METHODS, find_method
from pcamjax.explain.names import TITLES
from pcamjax.explain.sanity import cascade, survival
from pcamjax.explain.targets import DIFFERENCES
from pcamjax.files import write_json
from pcamjax.inference.predict import Run, predict_split
from pcamjax.inference.predictions import Predictions
from pcamjax.models import model_spec
from pcamjax.models.variables import initial_variables
from pcamjax.report.page import write_report

NUM = flags.DEFINE_integer("num", 16, "How many patches to explain.", lower_bound=1)
METHOD_NAMES = flags.DEFINE_list("methods", ["grad_cam"], f"How, of {', '.join(METHODS)}; or all.")
LAYERS = flags.DEFINE_list("layers", [], "The layer to look at, by its name, or several to average; by default the "
                           "network's feature map.")
TARGET = flags.DEFINE_enum("target", "1", ["1", "0", *DIFFERENCES], "What to explain: the logit of metastasis (1), of "
                           "healthy (0), their difference (margin) or the score (probability).")
COMPARE = flags.DEFINE_bool("compare", False, "Instead of drawing maps, measure the methods on --num patches drawn at "
                            "random: where they point, whether the network follows them, how fast they are.")
STAGES = flags.DEFINE_integer("stages", 0, "With --compare: draw the layers anew from the logits down in so many "
                              "steps, 2 or more, and see whether maps survive it; 0: only all at once.", lower_bound=0)
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


def compare_run(trained: Run, patches: Patches, split: Split, part: str, count: int, *, methods: Sequence[str],
                stages: int = 0, target: int | str = 1, layers: Sequence[str] = ()) -> str:
    """Writes the table of methods on `count` patches of a part, drawn at random, and returns it as Markdown.

    Synthetic patches are compared with their tumour masks, apart for tumour off the centre too; of real ones, those
    with metastasis stand apart. With `stages` layers are drawn anew in so many steps, too.
    """
    rng = np.random.default_rng(trained.config.seed)
    rows = split.part(part)
    rows = np.sort(rng.permutation(rows)[:count])
    name, images = trained.config.model.name, patches.images[rows]
    masks = masks_of(patches.manifest["source"], patches.ids[rows])
    groups = {"metastasis": patches.labels[rows] == 1} if masks is None else nest_groups(masks)

    score, seed = scorer(name), trained.config.seed
    compared = {TITLES[method]: raw_maps(name, method=method, target=target, layers=layers) for method in methods}
    fresh = initial_variables(name, seed + 1)
    networks = cascade(trained.network, trained.variables, fresh, stages=stages) if stages else []
    table = compare_methods(compared, trained.variables, fresh, images,
                            lambda images: np.asarray(score(trained.variables, images)), masks=masks, groups=groups,
                            seed=seed, progress=True)
    survivals = {title: survival(method, trained.variables, networks, images, seed)
                 for title, method in tqdm(compared.items() if networks else (), "randomise", unit=" methods",
                                           disable=not networks)}
    header = {"model": name, "checkpoint": trained.checkpoint, "split": split.name, "part": part,
              "patches": len(rows), "target": TARGETS[target], "store": patches.manifest["source"],
              "layers": list(layers) or [model_spec(name).cam_layer]}
    write_method_table(trained.folder.explanations(part).parent, f"{part}_comparison", header, table, survivals)
    return markdown(table, survivals)


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
    if COMPARE.value:
        with trained.folder.lock("results"):
            print(compare_run(trained, patches, split, part, NUM.value, methods=methods, stages=STAGES.value,
                              target=target, layers=LAYERS.value))
        print(f"table: {trained.folder.explanations(part).parent / f'{part}_comparison.md'}")
        return
    with trained.folder.lock("results"):
        made = explain_run(trained, patches, split, part, NUM.value, methods=methods, target=target,
                           layers=LAYERS.value)
    for method, peaks in zip(made.methods, made.peaks, strict=True):
        print(f"{TITLES[method]}: {len(peaks)} maps, {int(np.sum(peaks == 0))} of them zero")
    print(f"maps: {trained.folder.explanations(part)}\nreport: {write_report(trained.folder.path)}")


if __name__ == "__main__":
    launch.main(run)
