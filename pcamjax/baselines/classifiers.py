"""k-NN, SVM and random forest of scikit-learn: how they are made, scored, and chosen by the validation part."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int8
from sklearn.base import ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from pcamjax.errors import InputError
from pcamjax.meter import Meter


@dataclass(frozen=True)
class Examples:
    """Features of patches and their labels, 1 metastasis and 0 healthy."""

    features: Float32[np.ndarray, "n d"]
    labels: Int8[np.ndarray, " n"]


@dataclass(frozen=True)
class Candidate:
    """Settings of the grid, the validation AUC that they reached, and what it took to fit and to score with them."""

    settings: dict[str, Any]
    valid_auc: float
    fit_seconds: float
    score_seconds: float
    fit_kwh: float = math.nan
    fit_co2_kg: float = math.nan

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def _knn(seed: int, **settings: Any) -> ClassifierMixin:
    # In hundreds of dimensions a tree of neighbourhoods saves nothing.
    return KNeighborsClassifier(algorithm="brute", **settings)


def _svm(seed: int, **settings: Any) -> ClassifierMixin:
    return SVC(kernel="rbf", cache_size=1000, **settings)


def _forest(seed: int, **settings: Any) -> ClassifierMixin:
    return RandomForestClassifier(n_jobs=-1, random_state=seed, **settings)


CLASSIFIERS: dict[str, Callable[..., ClassifierMixin]] = {"knn": _knn, "svm": _svm, "forest": _forest}


def make_classifier(name: str, seed: int, settings: Mapping[str, Any], *, standardise: bool) -> Pipeline:
    """The classifier `name`, not fitted yet; if asked for, after a step that gives each feature mean 0 and variance 1.

    Raises:
      InputError: there is no such classifier, or it has no such setting.
    """
    if name not in CLASSIFIERS:
        raise InputError(f"config.model.name = {name!r}: choose one of {', '.join(CLASSIFIERS)}")
    scaling = [("scale", StandardScaler())] if standardise else []
    try:
        return Pipeline([*scaling, ("classify", CLASSIFIERS[name](seed, **settings))])
    except TypeError as error:
        raise InputError(f"config.grid.{name}: {error}; name settings of scikit-learn's classifier") from None


def choose(name: str, seed: int, grid: Mapping[str, Any], train: Examples, valid: Examples, *,
           standardise: bool, meter: Meter) -> tuple[Pipeline, list[Candidate]]:
    """Fits a classifier with every combination of the settings in `grid`; of equals the first one is chosen.

    Args:
      grid: the values to try, a sequence for each setting.

    Returns:
      The one whose AUC on `valid` is the largest, and all candidates, the chosen one first.
    Raises:
      InputError: as `make_classifier`; a setting has a value that it cannot have; or a part lacks a class.
    """
    for part, examples in (("train", train), ("valid", valid)):
        if len(np.unique(examples.labels)) < 2:
            raise InputError(f"the {len(examples.labels)} patches of {part} all have one label, both are needed to fit "
                             "and to choose; use more patches or another split")
    try:
        combinations = list(ParameterGrid({key: list(values) for key, values in grid.items()}))
    except (TypeError, ValueError) as error:
        raise InputError(f"config.grid.{name}: {error}; give every setting its values, as (5, 15)") from None
    chosen, candidates = None, []
    for settings in combinations:
        classifier = make_classifier(name, seed, settings, standardise=standardise)
        try:
            with meter.measure() as fitting:
                classifier.fit(train.features, train.labels)
            started = time.perf_counter()
            auc = float(roc_auc_score(valid.labels, scores(classifier, valid.features)))
        except ValueError as error:
            raise InputError(f"config.grid.{name}: with {settings}: {error}") from None
        candidate = Candidate(settings, auc, fitting.seconds, time.perf_counter() - started, fitting.kwh,
                              fitting.co2_kg)
        print(f"{name} with {settings}: validation AUC {auc:.4f}, {fitting.seconds:.1f} s to fit, "
              f"{candidate.score_seconds:.1f} s to score")
        if not candidates or auc > candidates[0].valid_auc:
            chosen = classifier
            candidates.insert(0, candidate)
        else:
            candidates.append(candidate)
    return chosen, candidates


def scores(classifier: Pipeline, features: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, " n"]:
    """The score of each example in [0,1], above 0.5 where the classifier itself says metastasis.

    k-NN: the share of metastases among the neighbours; forest: the mean over its trees of their share in the leaf. SVM:
    the sigmoid of the decision function, which keeps the order of the patches (so AUC) and the side of the boundary (so
    accuracy). It is no probability: one would have to be fitted to validation patches, as temperature scaling does for
    all models alike, and an SVM that had it built in would come to that second fit with an advantage.

    Raises:
      ValueError: the classifier was fitted on other features.
    """
    if isinstance(classifier[-1], SVC):
        values = 0.5 * (1 + np.tanh(classifier.decision_function(features) / 2))
    else:
        values = classifier.predict_proba(features)[:, 1]
    return np.clip(values, 0, 1).astype(np.float32)
