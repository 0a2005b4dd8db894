"""Classifiers in files: back as they were, without pickle, and refused where scikit-learn would trust them blindly."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import sklearn.base
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from pcamjax.baselines import classifier_file
from pcamjax.baselines.classifier_file import load_classifier, save_classifier
from pcamjax.baselines.classifiers import make_classifier, scores
from pcamjax.errors import InputError

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 5)).astype(np.float32)
LABELS = (FEATURES[:, 0] + RNG.normal(size=60) > 0).astype(np.int8)
SETTINGS = {"knn": {"n_neighbors": 5}, "svm": {"C": 1.0}, "forest": {"n_estimators": 3}}


def fitted(name: str, standardise: bool = True) -> Pipeline:
    return make_classifier(name, 0, SETTINGS[name], standardise=standardise).fit(FEATURES, LABELS)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "classifier.skops"


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_classifier_comes_back(name, standardise, file):
    classifier = fitted(name, standardise)
    save_classifier(classifier, file)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    again = load_classifier(file)
    np.testing.assert_array_equal(scores(again, FEATURES), scores(classifier, FEATURES))
    assert again[-1].get_params() == classifier[-1].get_params()


def spoil_tree(classifier: Pipeline, column: str, value: int) -> None:
    tree = classifier[1].estimators_[1].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][column][0] = value
    tree.__setstate__(state)


def spoil(step: int, **attributes):
    return lambda classifier: classifier[step].__dict__.update(attributes)


@pytest.mark.parametrize(("name", "change"), [
    ("forest", lambda classifier: spoil_tree(classifier, "left_child", 10**6)),
    ("forest", lambda classifier: spoil_tree(classifier, "right_child", 0)),  # round and round
    ("forest", lambda classifier: spoil_tree(classifier, "right_child", -2)),
    ("forest", lambda classifier: spoil_tree(classifier, "feature", 5)),
    ("forest", lambda classifier: spoil_tree(classifier, "feature", -3)),
    ("forest", spoil(1, n_features_in_=500)),
    ("forest", lambda classifier: classifier[1].estimators_.__setitem__(0, LogisticRegression())),
    ("svm", lambda classifier: classifier[1].__dict__.update(_dual_coef_=classifier[1]._dual_coef_[:, :3])),
    ("svm", lambda classifier: classifier[1].__dict__.update(support_=classifier[1].support_[:3])),
    ("svm", spoil(1, _n_support=np.array([1, 1], np.int32))),
    ("svm", spoil(1, _intercept_=np.zeros(0))),
    ("svm", spoil(1, n_features_in_=500)),
    ("svm", spoil(1, kernel="precomputed")),
    ("knn", spoil(1, _y=np.full(60, 7))),
    ("knn", spoil(1, _y=np.zeros(3, int))),
    ("knn", spoil(1, n_neighbors=61)),
    ("knn", spoil(1, classes_=np.array([0]))),
    ("knn", spoil(1, n_features_in_=4)),
])
def test_numbers_that_scikit_learn_would_follow_out_of_bounds_are_refused(name, change, file):
    classifier = fitted(name)
    change(classifier)
    save_classifier(classifier, file)
    with pytest.raises(InputError, match="classifier.skops: not usable as a classifier .the numbers in its .* "
                                         "contradict each other.; fit it anew in another workdir"):
        load_classifier(file)


@pytest.mark.parametrize(("name", "change", "said"), [
    ("svm", spoil(0, mean_=np.zeros(2)), "operands could not be broadcast"),
    ("svm", spoil(1, classes_=np.array([0])), "an example's scores are"),
])
def test_what_cannot_score_is_refused_when_it_is_read(name, change, said, file, as_users_call):
    classifier = fitted(name)
    change(classifier)
    save_classifier(classifier, file)
    with pytest.raises(InputError, match=f"classifier.skops: not usable as a classifier .{said}"):
        load_classifier(file)


@pytest.mark.parametrize(("thing", "said"), [
    ({"a": 1}, "it holds dict"),
    (LogisticRegression().fit(FEATURES, LABELS), "it holds LogisticRegression"),
    (Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression())]), "it holds StandardScaler, Logistic"),
    (Pipeline([("run", FunctionTransformer(os.system))]), "Untrusted types found in the file: .*system"),
])
def test_other_things_are_refused(thing, said, file):
    skops.io.dump(thing, file)
    with pytest.raises(InputError, match=f"classifier.skops: not usable as a classifier .{said}"):
        load_classifier(file)


def test_files_that_are_damaged_or_no_classifier(file):
    with pytest.raises(InputError, match="classifier.skops: no such file"):
        load_classifier(file)
    for content in (b"", pickle.dumps(fitted("knn")), np.random.default_rng(0).bytes(500)):
        file.write_bytes(content)
        with pytest.raises(InputError, match="classifier.skops: not usable as a classifier"):
            load_classifier(file)
    save_classifier(fitted("forest"), file)
    whole = file.read_bytes()
    for broken in (whole[:len(whole) // 2], whole[:300] + bytes(50) + whole[350:]):
        file.write_bytes(broken)
        with pytest.raises(InputError, match="classifier.skops: not usable as a classifier"):
            load_classifier(file)


@pytest.mark.parametrize(("outputs", "nodes", "said"), [
    ("1", np.array(2), ""),  # a segmentation fault in scikit-learn 1.9.1
    ("-1", None, "it takes more than 4.0 GiB of memory"),
])
def test_trees_at_which_scikit_learn_crashes_as_it_makes_them(outputs, nodes, said, file):
    save_classifier(fitted("forest", standardise=False), file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members["schema.json"])
    forest = schema["content"]["content"]["steps"]["content"][0]["content"][1]["content"]["content"]
    tree = forest["estimators_"]["content"][0]["content"]["content"]["tree_"]
    tree["__reduce__"]["args"]["content"][2] |= {"content": outputs, "__id__": 1}
    members["schema.json"] = json.dumps(schema)
    if nodes is not None:
        np.save(packed := io.BytesIO(), nodes)
        members[tree["content"]["content"]["nodes"]["file"]] = packed.getvalue()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=f"classifier.skops: not usable as a classifier .{said}"):
        load_classifier(file)


def test_a_file_that_unpacks_to_too_much(file, monkeypatch):
    save_classifier(fitted("knn"), file)
    monkeypatch.setattr(classifier_file, "LARGEST", file.stat().st_size)
    with pytest.raises(InputError, match="classifier.skops: unpacked it takes [0-9]+ bytes, expected [0-9]+ at most"):
        load_classifier(file)


def test_another_version_of_scikit_learn(file, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sklearn.base, "__version__", "0.1")
        save_classifier(fitted("svm"), file)
    with pytest.raises(InputError, match="not usable as a classifier .*from version 0.1 when using version"):
        load_classifier(file)
