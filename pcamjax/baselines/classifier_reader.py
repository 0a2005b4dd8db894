"""What is checked before a classifier from outside is used. A job calls this by `classifier_file`."""

import os
import warnings
import zipfile
from typing import Any

import numpy as np
import skops.io
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.tree._tree import Tree

from pcamjax.baselines.classifiers import scores
from pcamjax.files import parse_json
from pcamjax.npy import read_header

# Besides scikit-learn's estimators and NumPy's arrays, which skops takes for harmless. This one it does not, because
# scikit-learn follows the numbers in it without looking: `_sound_tree` looks.
TRUSTED = ["sklearn.tree._tree.Tree"]


def read_classifier(path: str | os.PathLike) -> Pipeline:
    """Reads a classifier: nothing in the file is executed, and arrays are checked where scikit-learn would read beyond
    them. What skops and scikit-learn do with a damaged file before that, they do in this process.

    Raises:
      Exception: whatever zipfile, json, NumPy, skops and scikit-learn say to a file that is not as it should be.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    read_header(file, member.file_size)
        parse_json(archive.read("schema.json").decode())
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        classifier = skops.io.load(path, trusted=TRUSTED)
    _require_sound(classifier)
    # What else contradicts itself in there, scikit-learn says as it scores.
    if (made := scores(classifier, np.zeros((1, classifier[-1].n_features_in_), np.float32))).shape != (1,):
        raise ValueError(f"an example's scores are {list(made.shape)}, expected [1]")
    return classifier


def _require_sound(classifier: Any) -> None:
    """Raises ValueError unless this is one of our pipelines, with arrays that fit each other."""
    kinds = [type(step) for _, step in classifier.steps] if type(classifier) is Pipeline else [type(classifier)]
    if kinds[:-1] not in ([], [StandardScaler]) or kinds[-1] not in _CHECKS:
        raise ValueError(f"it holds {', '.join(kind.__name__ for kind in kinds)}")
    if not _CHECKS[kinds[-1]](classifier[-1], classifier[-1].n_features_in_):
        raise ValueError(f"the numbers in its {kinds[-1].__name__} contradict each other")


def _sound_knn(knn: KNeighborsClassifier, features: int) -> bool:
    count = len(knn._fit_X)
    return bool(
        knn._fit_method == "brute" and knn._fit_X.shape == (count, features) and knn._y.shape == (count,)
        and np.isin(knn._y, (0, 1)).all() and knn.classes_.tolist() == [0, 1] and 0 < knn.n_neighbors <= count)


def _sound_svm(svm: SVC, features: int) -> bool:
    count = len(svm.support_vectors_)
    return bool(
        svm.kernel == "rbf" and not svm._sparse and svm.support_vectors_.shape == (count, features)
        and svm.support_.shape == (count,) and svm._dual_coef_.shape == (1, count) and svm._intercept_.shape == (1,)
        and svm._n_support.shape == (2,) and (svm._n_support >= 0).all() and svm._n_support.sum() == count)


def _sound_forest(forest: RandomForestClassifier, features: int) -> bool:
    return all(type(tree) is DecisionTreeClassifier and tree.n_features_in_ == features
               and _sound_tree(tree.tree_, features) for tree in forest.estimators_)


def _sound_tree(tree: Tree, features: int) -> bool:
    """Whether every way down a tree ends in a leaf, by features that are there."""
    own, left, right = np.arange(tree.node_count), tree.children_left, tree.children_right
    inner = left != -1
    down = (left > own) & (right > own) & (left < len(own)) & (right < len(own))
    known = (tree.feature >= 0) & (tree.feature < features)
    return bool(len(own) and (down & known)[inner].all()) and tree.n_features == features and (
        tree.n_outputs, tree.n_classes.tolist()) == (1, [2])


_CHECKS = {KNeighborsClassifier: _sound_knn, SVC: _sound_svm, RandomForestClassifier: _sound_forest}
