"""Which patches are explained, and the file that their maps lie in."""

import numpy as np
import pytest

from pcamjax.errors import InputError
from pcamjax.explain.explanations import Explanations, choose_examples, read_explanations


def calls(counts: dict[tuple[int, float], int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores with so many patches of each (label, score), shuffled."""
    rows = np.array([case for case, count in counts.items() for _ in range(count)])
    np.random.default_rng(0).shuffle(rows)
    return rows[:, 0].astype(np.int8), rows[:, 1].astype(np.float32)


def test_right_and_wrong_calls_of_each_class_are_taken_evenly():
    counts = {(1, 0.9): 20, (0, 0.8): 3, (1, 0.2): 1, (0, 0.1): 50}
    labels, scores = calls(counts)
    rows = choose_examples(labels, scores, 12, seed=0)
    assert len(rows) == 12 and (np.diff(rows) > 0).all()
    taken = {case: int(((labels[rows] == case[0]) & np.isclose(scores[rows], case[1])).sum()) for case in counts}
    assert taken == {(1, 0.9): 4, (0, 0.8): 3, (1, 0.2): 1, (0, 0.1): 4}


def test_a_score_of_one_half_is_a_call_of_healthy():
    labels, scores = calls({(1, 0.5): 9, (1, 0.51): 1})
    assert (scores[choose_examples(labels, scores, 2, seed=0)] > 0.5).sum() == 1


def test_unlabelled_patches_are_taken_evenly_by_their_call():
    labels, scores = calls({(-1, 0.9): 30, (-1, 0.1): 4})
    rows = choose_examples(labels, scores, 6, seed=0)
    assert (scores[rows] > 0.5).sum() == 3 and len(rows) == 6


def test_the_choice_is_random_but_follows_the_seed():
    labels, scores = calls({(1, 0.9): 500, (0, 0.1): 500})
    chosen = [choose_examples(labels, scores, 20, seed=seed).tolist() for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]
    assert min(chosen[0]) < 400 and max(chosen[0]) > 600, "they come from one end"


def test_fewer_patches_than_asked_for_are_all_taken():
    labels, scores = calls({(1, 0.9): 2, (0, 0.1): 1})
    assert choose_examples(labels, scores, 16, seed=0).tolist() == [0, 1, 2]


@pytest.fixture
def made() -> Explanations:
    rng = np.random.default_rng(1)
    return Explanations(rng.integers(0, 256, (3, 96, 96, 3), np.uint8), rng.random((2, 3, 96, 96), np.float32),
                        np.array([[1.5, 2, 3], [1, 0, 1]], np.float32), np.array(["grad_cam", "occlusion"]),
                        np.array(["a", "bb", "c"]), np.array([1, 0, -1], np.int8),
                        np.array([0.25, 0.5, 1], np.float32), "block3", "the logit of metastasis", "last, step 7")


def test_what_is_saved_comes_back(made, tmp_path):
    made.save(tmp_path / "explanations" / "test.npz")
    back = read_explanations(tmp_path / "explanations" / "test.npz")
    for name, value in made._asdict().items():
        np.testing.assert_array_equal(getattr(back, name), value)
        assert np.asarray(getattr(back, name)).dtype == np.asarray(value).dtype
    assert [file.name for file in (tmp_path / "explanations").iterdir()] == ["test.npz"]


@pytest.mark.parametrize(("change", "said"), [
    ({"maps": np.zeros((2, 2, 96, 96), np.float32)}, r"maps is float32 \[2, 2, 96, 96\], expected f4 \[2, 3, 96, 96\]"),
    ({"methods": np.array(["grad_cam", "tea_leaves"])}, "methods .*tea_leaves"),
    ({"maps": np.full((2, 3, 96, 96), np.nan, np.float32)}, r"maps has values outside \[0, 1\]"),
    ({"scores": np.array([0, 2, 0], np.float32)}, r"scores has values outside \[0, 1\]"),
    ({"labels": np.zeros(3)}, "labels is float64"),
    ({"extra": np.zeros(1)}, "holds .*extra.*; expected images"),
])
def test_a_file_of_another_form_is_refused(made, tmp_path, change, said):
    np.savez(tmp_path / "test.npz", **made._asdict() | change)
    with pytest.raises(InputError, match=f"test.npz: {said}.*; make it again: python -m experiments.explain"):
        read_explanations(tmp_path / "test.npz")


def test_a_missing_or_cut_file_is_refused(made, tmp_path):
    with pytest.raises(InputError, match="test.npz: no such file"):
        read_explanations(tmp_path / "test.npz")
    made.save(tmp_path / "test.npz")
    whole = (tmp_path / "test.npz").read_bytes()
    (tmp_path / "test.npz").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="test.npz: not readable as .npz"):
        read_explanations(tmp_path / "test.npz")


def test_the_centres_share_of_each_map_is_recorded(made):
    made.maps[1, 1] = 0
    made.maps[0, 2] = 0
    made.maps[0, 2, 32:64, 32:64] = 0.5
    first, second, third = made.records()
    assert (first["id"], first["label"], first["score"]) == ("a", 1, 0.25)
    assert first["maps"]["grad_cam"]["peak"] == 1.5
    assert np.isnan(second["maps"]["occlusion"]["centre_energy"]) and third["maps"]["grad_cam"]["centre_energy"] == 1
