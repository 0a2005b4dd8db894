"""Averages over symmetries and members: the mean probability, whose bits no order or symmetry changes."""

import itertools

import numpy as np
import pytest
import tiny
from made_predictions import META, predictions
from scipy.special import expit

from pcamjax.errors import InputError
from pcamjax.inference.averaging import ensemble, mean_logits, symmetric_views
from pcamjax.inference.predict import load_run, predict, predict_split
from pcamjax.inference.predictions import Predictions, scores


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    tiny.register()
    return tiny.write_noise(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def run(patches, tmp_path_factory):
    return load_run(tiny.untrained_run(tmp_path_factory.mktemp("runs") / "run", patches.path))


def test_the_views_are_the_symmetries_of_the_square():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3)).astype(np.uint8)
    views = {view.tobytes() for view in symmetric_views(image)}
    assert len(views) == 8 and image.tobytes() in views
    for view in symmetric_views(image):
        assert {again.tobytes() for again in symmetric_views(view)} == views
        assert np.shares_memory(view, image)


def test_scores_do_not_change_by_a_bit_when_patches_are_turned(run, patches):
    images = np.array(patches.images[:21])
    averaged = predict(run, images, 8, symmetries=True)
    views = np.stack(list(symmetric_views(images)))
    each = predict(run, views.reshape(-1, 96, 96, 3), 8).reshape(8, 21)
    assert np.ptp(each, axis=0).min() > 1e-5  # the network itself is not invariant
    np.testing.assert_allclose(averaged, each.mean(0), rtol=1e-6)
    turned = views[np.arange(21) % 8, np.arange(21)]  # each patch in its own way
    assert predict(run, turned, 8, symmetries=True).tobytes() == averaged.tobytes()


def test_predictions_of_a_split_say_that_they_are_averaged(run, patches, tmp_path):
    split = tiny.split(patches)
    plain, averaged = (predict_split(run, patches, split, "valid", symmetries=each) for each in (False, True))
    assert averaged.meta == plain.meta | {"averaged": "probability over the eight symmetries of the square"}
    images = np.array(patches.images[split.part("valid")])
    np.testing.assert_array_equal(averaged.scores, predict(run, images, 8, symmetries=True))
    averaged.save(tmp_path / "valid.npz")
    np.testing.assert_array_equal(Predictions.load(tmp_path / "valid.npz").logits, averaged.logits)


def test_the_mean_is_that_of_probabilities():
    margins = np.random.default_rng(0).normal(0, 3, (5, 40))
    logits = mean_logits(margins)
    np.testing.assert_allclose(expit(logits[:, 1] - logits[:, 0]), expit(margins).mean(0), rtol=1e-12)
    permuted = mean_logits(margins[[3, 0, 4, 2, 1]])
    assert permuted.tobytes() == logits.tobytes()


def test_extreme_margins_keep_their_order():
    margins = np.array([[1e30, 1e30, 800, 50, 40], [-1e30, 1e30, 900, 50, 60]])
    logits = mean_logits(margins)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(scores(logits.astype(np.float32)), [0.5, 1, 1, 1, 1])
    difference = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(difference[2:], [800 + np.log(2), 50, 40 + np.log(2)], rtol=1e-6)


def members():
    return [predictions([0, 1, 1], margins=margins, slides=["a", "a", "b"], run=f"run_{i}")
            for i, margins in enumerate([[-1, 2, 30], [0, -3, 20], [-2, 1, 25]])]


def test_an_ensemble_is_the_mean_of_its_members():
    made = members()
    got = ensemble(made)
    np.testing.assert_allclose(got.scores, np.mean([member.scores for member in made], axis=0), rtol=1e-6)
    assert got.meta == META | {"role": "valid", "run": "run_0 + run_1 + run_2"}
    assert got.slides.tolist() == ["a", "a", "b"] and got.labels.tolist() == [0, 1, 1]
    for order in itertools.permutations(made):
        assert ensemble(order).logits.tobytes() == got.logits.tobytes()


def test_a_member_may_have_scores_alone():
    first = members()[0]
    second = predictions([0, 1, 1], [0, 0.25, 1], slides=["a", "a", "b"], run="forest")
    np.testing.assert_allclose(ensemble([first, second]).scores, (first.scores + second.scores) / 2, atol=1e-7)


@pytest.mark.parametrize(("choose", "message"), [
    (lambda made: made[:1], "an ensemble of 1, expected two members at least"),
    (lambda made: [*made, made[1]], "members 2 and 4 of an ensemble are both"),
    (lambda made: [made[0], predictions([0, 1], margins=[1, 2])], "predictions of 3 and of 2 patches"),
    (lambda made: [made[0], predictions([0, 1, 0], margins=[1, 2, 3], slides=["a", "a", "b"])],
     r"labels\[2\] is '1' in one and '0' in the other"),
    (lambda made: [made[0], predictions([0, 1, 1], margins=[1, 2, 3], slides=["a", "a", "b"], role="test")],
     "differ in role: 'valid' and 'test'"),
    (lambda made: [made[0], predictions([0, 1, 1], margins=[1, 2, 3], slides=["a", "a", "b"], store_sha256="cd")],
     "differ in store_sha256: 'ab' and 'cd'"),
])
def test_what_does_not_belong_together_is_refused(choose, message):
    with pytest.raises(InputError, match=message):
        ensemble(choose(members()))
