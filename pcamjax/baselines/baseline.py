"""A classical model in a run's folder: fitted on a split, chosen by its validation part, and asked for predictions."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int64
from ml_collections import ConfigDict
from sklearn.pipeline import Pipeline

from pcamjax.baselines.classifier_file import load_classifier, save_classifier
from pcamjax.baselines.classifiers import CLASSIFIERS, Examples, choose, scores
from pcamjax.baselines.histograms import colour_histograms
from pcamjax.baselines.network_features import make_pooled_features, variables_sha256
from pcamjax.data.splits import Split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.inference.predict import load_run
from pcamjax.inference.predictions import Predictions
from pcamjax.meter import Meter, Spent
from pcamjax.training.checkpoints import Checkpoints
from pcamjax.training.parallel import choose_devices, device_name
from pcamjax.training.run import RunFolder, data_identity, flatten

FEATURES, CHECKPOINTS = ("histogram", "network"), ("last", "best")


@dataclass(frozen=True)
class Features:
    """How patches become numbers.

    Attributes:
      name: what a reader calls it.
      identity: hashes of what it hangs on beside the configuration.
      standardise: whether the numbers have to be brought to one scale before distances mean anything.
      size: bytes on disk of what they are computed with.
      device: what computes them.
    """

    name: str
    identity: dict[str, str]
    standardise: bool
    size: int
    device: str
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
        return self.measured_predictions(patches, split, role, Meter())[0]

    def measured_predictions(self, patches: Patches, split: Split, role: str, meter: Meter
                             ) -> tuple[Predictions, dict[str, Any]]:
        """`predict` and what it cost, features included; of a first patch's nothing is measured, for they compile."""
        indices = split.part(role)
        self.features.extract(patches, indices[:1])
        try:
            with meter.measure() as spent:
                values = scores(self.classifier, self.features.extract(patches, indices))
        except ValueError as error:
            raise InputError(f"{self.folder.classifier}: {error}; fit it anew in another workdir") from None
        settings = ", ".join(f"{key} = {value}" for key, value in self.record["chosen"]["settings"].items())
        meta = {"model": self.record["model"], "run": self.folder.path.name, "checkpoint": settings, "role": role,
                "split": split.name, "split_description": split.description, "leaks_slides": split.leaks_slides,
                "store_sha256": patches.sha256}
        made = Predictions(ids=patches.ids[indices], slides=patches.slides[indices], labels=patches.labels[indices],
                           scores=values, logits=None, meta=meta)
        return made, meter.inference_cost(spent, len(indices))


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
        meter = Meter(config.carbon.country)
        features.extract(patches, used[:1])  # compiles
        train_examples, train_spent = _examples(features, patches, used, meter)
        valid_examples, valid_spent = _examples(features, patches, valid, meter)
        classifier, candidates = choose(name, config.seed, config.grid[name].to_dict(), train_examples, valid_examples,
                                        standardise=features.standardise, meter=meter)
        chosen = candidates[0]
        record = {
            "model": f"{name} on {features.name}", "features": train_examples.features.shape[1],
            "chosen": chosen.to_dict(), "candidates": [candidate.to_dict() for candidate in candidates],
            "fitted_on": len(used), "feature_seconds": {"train": train_spent.seconds, "valid": valid_spent.seconds},
            "split": {"name": split.name, "description": split.description, "leaks_slides": split.leaks_slides,
                      **{role: len(indices) for role, indices in split.indices.items()}},
        }
        folder.claim(config, data)  # only now: whatever is refused before leaves no folder
        save_classifier(classifier, folder.classifier)
        # Of the settings that were chosen; the candidates hold what the search took.
        record["cost"] = {"train_ms_per_image": 1000 * (train_spent.seconds + chosen.fit_seconds) / len(used),
                          "parameters": None, "bytes": folder.classifier.stat().st_size + features.size,
                          "flops_per_image": None,
                          **meter.cost(train_spent.kwh + chosen.fit_kwh, train_spent.co2_kg + chosen.fit_co2_kg),
                          "device": features.device}
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
        return Features(f"{asked.space} histograms ({'x'.join(map(str, asked.bins))} bins)", {}, False, 0,
                        device_name(jax.local_devices(backend="cpu")), extract)
    if not asked.run:
        raise InputError("config.features.run is empty; name the folder of a trained run: --config.features.run=...")
    run = load_run(asked.run, asked.checkpoint)
    if run.folder.data() != data:
        raise InputError(f"{asked.run}: was trained on another store or split, so it may have seen what would be "
                         "validated and tested on; use its own (config.data)")

    with contextlib.closing(Checkpoints(run.folder.checkpoints)) as checkpoints:
        size = checkpoints.variables_bytes(asked.checkpoint)
    pooled_features = make_pooled_features(run)

    def extract(patches: Patches, indices: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n d"]:
        return pooled_features(patches.images, indices)
    return Features(f"features of {run.config.model.name} ({run.checkpoint})",
                    {"network_sha256": variables_sha256(run)}, True, size,
                    device_name(choose_devices(run.config.parallel.devices, run.config.eval_batch_size)), extract)


def _require_settings(config: ConfigDict) -> None:
    values = flatten(config.to_dict())
    for key, known in (("model.name", CLASSIFIERS), ("features.name", FEATURES), ("features.checkpoint", CHECKPOINTS)):
        if values[key] not in known:
            raise InputError(f"config.{key} = {values[key]!r}: choose one of {', '.join(known)}")
    for key in ("max_train", "seed"):
        if values[key] < 0:
            raise InputError(f"config.{key} = {values[key]}: expected at least 0")


def _examples(features: Features, patches: Patches, indices: Int64[np.ndarray, " n"], meter: Meter
              ) -> tuple[Examples, Spent]:
    """Features and labels, and what the features took."""
    with meter.measure() as spent:
        values = features.extract(patches, indices)
    return Examples(values, patches.labels[indices]), spent
