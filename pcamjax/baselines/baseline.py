"""A classical model in a run's folder: fitted on a split, chosen by its validation part, and asked for predictions."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from ml_collections import ConfigDict
from sklearn.pipeline import Pipeline

from pcamjax.baselines.classifier_file import load_classifier, save_classifier
from pcamjax.baselines.classifiers import CLASSIFIERS, Examples, choose, scores
from pcamjax.baselines.histograms import colour_histograms
from pcamjax.baselines.network_features import pooled_features, variables_sha256
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.inference.predict import load_run
from pcamjax.inference.predictions import Predictions
from pcamjax.training.run import RunFolder, data_identity, flatten

FEATURES, CHECKPOINTS = ("histogram", "network"), ("last", "best")


@dataclass(frozen=True)
class Features:
    """How patches become numbers.

    Attributes:
      name: what a reader calls it.
      identity: hashes of what it hangs on beside the configuration.
      standardise: whether the numbers have to be brought to one scale before distances mean anything.
    """

    name: str
    identity: dict[str, str]
    standardise: bool
    extract: Callable[[Patches, Int64[np.ndarray, " n"]], Float32[np.ndarray, "n d"]]


@dataclass(frozen=True)
class Baseline:
    """A fitted classical model."""

    folder: RunFolder
    features: Features
    classifier: Pipeline
    record: dict[str, Any]

    def predict(self, patches: Patches, split: Split, role: str) -> Predictions:
        """The predictions of one role ("train", "valid", "test") of a split; there are no logits.

        Raises:
          InputError: the split has no such role, or the classifier was fitted on other features.
        """
        indices = split.part(role)
        try:
            values = scores(self.classifier, self.features.extract(patches, indices))
        except ValueError as error:
            raise InputError(f"{self.folder.classifier}: {error}; fit it anew in another workdir") from None
        settings = ", ".join(f"{key} = {value}" for key, value in self.record["chosen"]["settings"].items())
        meta = {"model": self.record["model"], "run": self.folder.path.name, "checkpoint": settings, "role": role,
                "split": split.name, "split_description": split.description, "leaks_slides": split.leaks_slides,
                "store_sha256": patches.sha256}
        return Predictions(ids=patches.ids[indices], slides=patches.slides[indices], labels=patches.labels[indices],
                           scores=values, logits=None, meta=meta)


def fit_baseline(config: ConfigDict, patches: Patches, split: Split, folder: RunFolder) -> Baseline:
    """Fits the classifier that `config` names with each of its settings, keeps the best by validation AUC and writes
    the folder; or opens the one that is there already.

    The train part is fitted on, up to `config.max_train` patches drawn by `config.seed`; the validation part chooses;
    nothing else is read.

    Raises:
      InputError: the configuration, the data, the network's run or the folder do not allow it, or another process is at
        work there.
    """
    _require_settings(config)
    train, valid = split.part("train"), split.part("valid")
    patches.require_labels(np.concatenate([train, valid]))
    data = data_identity(patches, split)
    features = open_features(config, data)
    data |= features.identity
    folder.require_fits(config, data)
    with folder.lock("training"):
        if (record := folder.record()) is not None:
            return Baseline(folder, features, load_classifier(folder.classifier), record)
        used = train
        if 0 < config.max_train < len(train):
            used = np.sort(np.random.default_rng(config.seed).choice(train, config.max_train, replace=False))
        name = config.model.name
        print(f"{name} on {features.name}: {len(used)} of {len(train)} patches to fit on, {len(valid)} to choose by")
        train_examples, train_seconds = _examples(features, patches, used)
        valid_examples, valid_seconds = _examples(features, patches, valid)
        classifier, candidates = choose(name, config.seed, config.grid[name].to_dict(), train_examples, valid_examples,
                                        standardise=features.standardise)
        chosen = candidates[0]
        record = {
            "model": f"{name} on {features.name}", "features": train_examples.features.shape[1],
            "chosen": chosen.to_dict(), "candidates": [candidate.to_dict() for candidate in candidates],
            "fitted_on": len(used), "feature_seconds": {"train": train_seconds, "valid": valid_seconds},
            "milliseconds_per_image": {
                "training": 1000 * (train_seconds + chosen.fit_seconds) / len(used),
                "search": 1000 * (train_seconds + sum(candidate.fit_seconds for candidate in candidates)) / len(used),
                "prediction": 1000 * (valid_seconds + chosen.score_seconds) / len(valid)},
            "split": {"name": split.name, "description": split.description, "leaks_slides": split.leaks_slides,
                      **{role: len(indices) for role, indices in split.indices.items()}},
        }
        folder.claim(config, data)  # only now: whatever is refused before leaves no folder
        save_classifier(classifier, folder.classifier)
        folder.write_record(record)
        return Baseline(folder, features, classifier, record)


def open_features(config: ConfigDict, data: dict[str, str]) -> Features:
    """The features that the configuration names.

    Args:
      data: the `data_identity` of the patches that they are meant for.
    Raises:
      InputError: there are no such features; or the network's run cannot be opened or was trained on another split,
        whose training patches may be validated and tested on in this one.
    """
    asked = config.features
    if asked.name == "histogram":
        def extract(patches: Patches, indices: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
            # Of roots the distance is Hellinger's, in which full bins do not drown the others. On real patches k-NN
            # and SVM validated better so than on shares, standardised or not, in all three spaces.
            return np.sqrt(colour_histograms(patches.images, indices, space=asked.space, bins=asked.bins))
        return Features(f"{asked.space} histograms ({'x'.join(map(str, asked.bins))} bins)", {}, False, extract)
    if not asked.run:
        raise InputError("config.features.run is empty; name the folder of a trained run: --config.features.run=...")
    run = load_run(asked.run, asked.checkpoint)
    if run.folder.data() != data:
        raise InputError(f"{asked.run}: was trained on another store or split, so it may have seen what would be "
                         "validated and tested on; use its own (config.data)")

    def extract(patches: Patches, indices: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        return pooled_features(run, patches.images, indices)
    return Features(f"features of {run.config.model.name} ({run.checkpoint})",
                    {"network_sha256": variables_sha256(run)}, True, extract)


def _require_settings(config: ConfigDict) -> None:
    values = flatten(config.to_dict())
    for key, known in (("model.name", CLASSIFIERS), ("features.name", FEATURES), ("features.checkpoint", CHECKPOINTS)):
        if values[key] not in known:
            raise InputError(f"config.{key} = {values[key]!r}: choose one of {', '.join(known)}")
    for key in ("max_train", "seed"):
        if values[key] < 0:
            raise InputError(f"config.{key} = {values[key]}: expected at least 0")


def _examples(features: Features, patches: Patches, indices: Int64[np.ndarray, " n"]) -> tuple[Examples, float]:
    """Features and labels, and the seconds that the features took."""
    started = time.perf_counter()
    values = features.extract(patches, indices)
    return Examples(values, patches.labels[indices]), time.perf_counter() - started
