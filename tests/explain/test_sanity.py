"""Cascading randomisation: what is drawn anew at each stage, and how like maps are."""

import jax
import numpy as np
import pytest
import tiny
from flax import traverse_util
from scipy import stats

from pcamjax.errors import InputError
from pcamjax.explain.sanity import cascade, spearman, ssim, survival
from pcamjax.models.variables import initial_variables

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def variables():
    tiny.register()
    return [jax.tree.map(lambda x, seed=seed: np.asarray(x) + seed, initial_variables("tiny", seed)) for seed in (1, 2)]


def changed(trained, mixed):
    """The layers that differ from the trained network's, in no order."""
    flat, other = (traverse_util.flatten_dict(tree) for tree in (trained, mixed))
    assert flat.keys() == other.keys()
    return {path[-2] for path in flat if (flat[path] != other[path]).any()}


def test_layers_are_drawn_anew_from_the_output_down(variables):
    trained, fresh = variables
    stages = cascade(tiny.tiny(), trained, fresh, stages=4)
    assert [stage.down_to for stage in stages] == ["logits", "block3_bn1", "block2_bn1", "block1_conv1"]
    below = {"logits", "dense1", "dense2", "block3_bn1", "block3_conv2", "block3_bn2"}
    assert changed(trained, stages[0].variables) == {"logits"}
    assert changed(trained, stages[1].variables) == below
    assert changed(trained, stages[2].variables) == below | {"block3_conv1", "block2_bn1", "block2_conv2", "block2_bn2"}
    jax.tree.map(np.testing.assert_array_equal, stages[3].variables, fresh)


def test_a_layer_is_random_with_all_that_it_holds(variables):
    trained, fresh = variables
    first = cascade(tiny.tiny(), trained, fresh, stages=4)[1].variables
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, first[collection]["backbone"]["block3_bn2"],
                     fresh[collection]["backbone"]["block3_bn2"])


def test_there_are_no_more_stages_than_layers(variables):
    stages = cascade(tiny.tiny(), *variables, stages=100)
    assert len(stages) == 15 and len({stage.down_to for stage in stages}) == 15


def test_stages_have_the_tree_of_the_network_so_that_nothing_compiles_anew(variables):
    # An empty collection is part of the tree that a function was compiled for.
    trained, fresh = ({**tree, "empty": {}} for tree in variables)
    trees = {jax.tree.structure(stage.variables) for stage in cascade(tiny.tiny(), trained, fresh)}
    assert trees == {jax.tree.structure(trained)}


def test_what_cannot_be_drawn_anew(variables):
    trained, fresh = variables
    with pytest.raises(InputError, match="1 stages: expected 2 or more"):
        cascade(tiny.tiny(), trained, fresh, stages=1)
    with pytest.raises(InputError, match="not the shapes of the trained ones"):
        cascade(tiny.tiny(), trained, {**fresh, "params": {}})


def test_a_map_survives_until_the_layer_that_it_reads_is_random(variables):
    trained, fresh = variables

    def reads_block1(variables, images):
        weights = variables["params"]["backbone"]["block1_conv1"]["kernel"].sum((0, 1, 3))
        return np.maximum((images - 128.0) @ (weights - weights.mean()), 0), np.zeros(len(images), bool)

    stages = cascade(tiny.tiny(), trained, fresh, stages=4)
    rows = survival(reads_block1, trained, stages, IMAGES)
    assert [row.stage for row in rows] == ["another patch's map", *(stage.down_to for stage in stages)]
    assert abs(rows[0].spearman.mean) < 0.05 and rows[0].ssim.mean < 0.3
    for row in rows[1:4]:
        np.testing.assert_allclose([*row.spearman, *row.ssim], [1, 1, 1, 6] * 2, rtol=1e-9)
    assert rows[4].spearman.high < 0.999 and rows[4].ssim.mean < rows[3].ssim.mean
    assert rows[4].zero.mean == 0


def test_maps_of_zeros_have_no_rank_and_are_counted(variables):
    trained, fresh = variables

    def zero_unless_trained(variables, images):
        alive = (np.arange(len(images)) < 2) | (variables is trained)
        return images[..., 0].astype(float) * alive[:, None, None], ~alive

    rows = survival(zero_unless_trained, trained, cascade(tiny.tiny(), trained, fresh, stages=2), IMAGES)
    assert rows[1].spearman.n == 2 and rows[1].spearman.mean == pytest.approx(1)
    assert rows[1].zero.mean == pytest.approx(4 / 6) and rows[1].ssim.n == 6


def test_spearman_is_scipys_for_each_pair():
    rng = np.random.default_rng(0)
    maps, others = np.maximum(rng.normal(size=(2, 4, 7, 5)), 0)  # with many equal values
    expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(maps, others, strict=True)]
    np.testing.assert_allclose(spearman(maps, others), expected)
    np.testing.assert_allclose(spearman(maps, np.exp(maps)), 1)
    np.testing.assert_allclose(spearman(maps, maps.max() - maps), -1)
    assert np.isnan(spearman(maps, np.zeros_like(maps))).all()


def test_ssim_of_constant_maps_is_the_formula_and_the_unit_does_not_matter():
    rng = np.random.default_rng(0)
    maps, others = rng.random((2, 3, 40, 40))
    np.testing.assert_allclose(ssim(maps, 7 * maps), 1)
    np.testing.assert_allclose(ssim(maps, others), ssim(3 * others, maps))
    assert (ssim(maps, others) < 0.2).all() and (ssim(maps, 1 - maps) < 0).all()
    # Means 1 and 0, no variance: c1 / (1 + c1).
    np.testing.assert_allclose(ssim(np.ones((1, 20, 20)), np.zeros((1, 20, 20))), 1e-4 / (1 + 1e-4))
    assert np.isnan(ssim(np.zeros((1, 20, 20)), np.zeros((1, 20, 20)))).all()


def test_ssim_at_one_pixel_by_the_window_of_the_paper():
    rng = np.random.default_rng(1)
    maps, others = rng.random((2, 1, 11, 11))
    maps[0, 0, 0] = others[0, 0, 0] = 1
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None]**2 + offset**2) / (2 * 1.5**2))
    window /= window.sum()
    x, y = (np.pad(array, ((0, 0), (5, 5), (5, 5)), "symmetric") for array in (maps, others))
    made = []
    for row in range(11):
        for column in range(11):
            a, b = (array[0, row:row + 11, column:column + 11] for array in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            variances = (window * (a - mean_a)**2).sum() + (window * (b - mean_b)**2).sum()
            made.append((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
                        / ((mean_a**2 + mean_b**2 + 1e-4) * (variances + 9e-4)))
    np.testing.assert_allclose(ssim(maps, others), np.mean(made), rtol=1e-9)
