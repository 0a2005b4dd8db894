"""k-NN, SVM and forest: scores as worked out by hand, and the choice by validation AUC."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from pcamjax.baselines.classifiers import Examples, choose, make_classifier, scores
from pcamjax.errors import InputError
from pcamjax.meter import Meter

RNG = np.random.default_rng(0)
SETTINGS = {"knn": {"n_neighbors": 5}, "svm": {"C": 1.0}, "forest": {"n_estimators": 5, "max_depth": 3}}


def examples(count: int) -> Examples:
    """Four features; the sign of the product of the first two is the label, with noise."""
    features = RNG.normal(size=(count, 4)).astype(np.float32)
    noisy = features[:, 0] * features[:, 1] + 0.3 * RNG.normal(size=count)
    return Examples(features, (noisy > 0).astype(np.int8))


TRAIN, VALID = examples(200), examples(100)


def fitted(name: str, seed: int = 0, features: np.ndarray = TRAIN.features):
    return make_classifier(name, seed, SETTINGS[name], standardise=True).fit(features, TRAIN.labels)


def test_a_neighbours_share():
    line, labels = np.array([[0], [1], [2], [3], [10], [11], [12]], np.float32), np.array([0, 0, 1, 1, 1, 0, 1])
    knn = make_classifier("knn", 0, {"n_neighbors": 3}, standardise=False).fit(line, labels)
    given = scores(knn, np.array([[0.4], [2.4], [11.1]], np.float32))
    np.testing.assert_allclose(given, [1 / 3, 2 / 3, 2 / 3], rtol=1e-6)
    assert given.dtype == np.float32


def test_an_svms_score_keeps_its_order_and_its_side():
    svm = fitted("svm")
    decision, given = svm.decision_function(VALID.features), scores(svm, VALID.features)
    np.testing.assert_allclose(given, 1 / (1 + np.exp(-decision)), rtol=1e-5)
    assert ((given > 0.5) == svm.predict(VALID.features)).all() and 0 < (given > 0.5).mean() < 1
    assert roc_auc_score(VALID.labels, given) == roc_auc_score(VALID.labels, decision)


def test_a_forests_score_is_the_mean_of_its_leaves():
    forest = fitted("forest")
    scaled = forest[0].transform(VALID.features)
    leaves = [tree.tree_.value[tree.apply(scaled), 0] for tree in forest[1].estimators_]
    expected = np.mean([leaf[:, 1] / leaf.sum(1) for leaf in leaves], 0)
    np.testing.assert_allclose(scores(forest, VALID.features), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["knn", "svm"])
def test_the_unit_of_a_feature_does_not_matter(name):
    """Once it is standardised."""
    units = np.array([1, 1000, 1, 1], np.float32)
    np.testing.assert_allclose(scores(fitted(name, features=TRAIN.features * units), VALID.features * units),
                               scores(fitted(name), VALID.features), atol=1e-4)


def test_a_forest_hangs_on_its_seed_alone():
    once, again, other = (scores(fitted("forest", seed), VALID.features) for seed in (3, 3, 4))
    assert (once == again).all() and (once != other).any()


def test_the_best_by_validation_is_chosen(capsys):
    grid = {"n_neighbors": (199, 7, 1)}
    classifier, candidates = choose("knn", 0, grid, TRAIN, VALID, standardise=False, meter=Meter())
    by_hand = {k: roc_auc_score(VALID.labels, KNeighborsClassifier(k).fit(TRAIN.features, TRAIN.labels).predict_proba(
        VALID.features)[:, 1]) for k in grid["n_neighbors"]}
    assert max(by_hand, key=by_hand.get) == 7 == classifier[-1].n_neighbors == candidates[0].settings["n_neighbors"]
    assert {candidate.settings["n_neighbors"]: candidate.valid_auc for candidate in candidates} == by_hand
    assert all(candidate.fit_seconds > 0 and candidate.score_seconds > 0 for candidate in candidates)
    assert "knn with {'n_neighbors': 199}: validation AUC " in capsys.readouterr().out


def test_of_equals_the_first_is_chosen():
    _, candidates = choose("svm", 0, {"C": (1.0,), "random_state": (5, 9, 7)}, TRAIN, VALID, standardise=False,
                           meter=Meter())
    assert [candidate.settings["random_state"] for candidate in candidates] == [5, 9, 7]


@pytest.mark.parametrize(("name", "grid", "said"), [
    ("trees", {}, "config.model.name = 'trees': choose one of knn, svm, forest"),
    ("knn", {"neighbours": (5,)}, "config.grid.knn: .*unexpected keyword argument 'neighbours'.*; name settings of"),
    ("knn", {"n_neighbors": 5}, "config.grid.knn: .*; give every setting its values, as .5, 15."),
    ("knn", {"n_neighbors": ()}, "config.grid.knn: .*; give every setting its values"),
    ("knn", {"n_neighbors": (0,)}, "config.grid.knn: with {'n_neighbors': 0}: The 'n_neighbors' parameter"),
    ("knn", {"n_neighbors": (201,)}, "config.grid.knn: with {'n_neighbors': 201}: Expected n_neighbors <= n_samples"),
    ("svm", {"C": (-1.0,)}, "config.grid.svm: with {'C': -1.0}: The 'C' parameter"),
])
def test_what_is_not_possible_is_named(name, grid, said):
    with pytest.raises(InputError, match=said):
        choose(name, 0, grid, TRAIN, VALID, standardise=False, meter=Meter())


@pytest.mark.parametrize("part", ["train", "valid"])
def test_one_class_is_not_enough(part):
    given = {"train": TRAIN, "valid": VALID}
    given[part] = Examples(given[part].features, np.ones_like(given[part].labels))
    with pytest.raises(InputError, match=f"patches of {part} all have one label, both are needed"):
        choose("knn", 0, {"n_neighbors": (5,)}, **given, standardise=False, meter=Meter())
