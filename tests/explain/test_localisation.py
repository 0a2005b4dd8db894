"""Where maps point: worked out by hand on small ones, and what must hold for all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pcamjax.data.synthetic import generate
from pcamjax.errors import InputError
from pcamjax.explain.localisation import (
    area,
    best_iou,
    centre_energy,
    centre_gaussian,
    energy_inside,
    iou,
    nest_groups,
    pointing_game,
    random_order,
)

# Maps of 2x4: the left half is tumour; the last mask is empty.
MAPS = np.array([[[4, 1, 2, 1], [0, 0, 0, 0]], [[1, 0, 6, 0], [1, 0, 0, 0]], [[3, 0, 3, 3], [0, 0, 0, 0]],
                 [[0, 0, 0, 0], [0, 0, 0, 0]], [[1, 0, 0, 0], [0, 0, 0, 0]]], np.float32)
MASKS = np.zeros((5, 2, 4), bool)
MASKS[:4, :, :2] = True
MASKS[3, :, 1] = False  # a quarter of the image, under the map of zeros


def test_pointing_game_shares_equal_maxima_and_plays_zeros_by_chance():
    np.testing.assert_allclose(pointing_game(MAPS, MASKS), [1, 0, 1 / 3, 1 / 4, np.nan])


def test_energy_inside_the_mask():
    np.testing.assert_allclose(energy_inside(MAPS, MASKS), [5 / 8, 2 / 8, 3 / 9, 1 / 4, np.nan])


def test_iou_at_each_threshold_and_the_best_of_them():
    made = iou(MAPS, MASKS, thresholds=(0.25, 0.5, 1.0))
    np.testing.assert_allclose(made, [[2 / 6, 1 / 5, 1 / 4], [0, 0, 0], [1 / 6, 1 / 6, 1 / 6],
                                      [1 / 4, 1 / 4, 1 / 4], [np.nan] * 3])
    np.testing.assert_array_equal(best_iou(made), made[:, 0])


def test_a_perfect_map():
    perfect = MASKS[:3].astype(np.float32)
    for measure in (pointing_game, energy_inside):
        np.testing.assert_array_equal(measure(perfect, MASKS[:3]), 1)
    np.testing.assert_array_equal(iou(perfect, MASKS[:3]), 1)


def test_chance_is_the_area():
    np.testing.assert_allclose(area(MASKS), [1 / 2, 1 / 2, 1 / 2, 1 / 4, np.nan])


def test_centre_energy():
    maps = np.zeros((3, 96, 96), np.float32)
    maps[0, 32:64, 32:64] = 2
    maps[1, 31] = 1
    maps[2, 32] = 1
    np.testing.assert_allclose(centre_energy(maps), [1, 0, 1 / 3])
    np.testing.assert_allclose(centre_energy(np.zeros((1, 96, 96), np.float32)), 1 / 9)


def test_centre_gaussian_has_a_standard_deviation_at_the_edge_of_the_label_square():
    maps = centre_gaussian(2)
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[0, ::-1].T)
    assert np.argwhere(maps[0] == maps[0].max()).tolist() == [[47, 47], [47, 48], [48, 47], [48, 48]]
    # Within one standard deviation along both axes lie (68.3 %)^2 of a Gaussian; the image cuts 0.3 % off each axis.
    np.testing.assert_allclose(centre_energy(maps), (0.6827 / 0.9973) ** 2, rtol=1e-3)
    assert centre_energy(centre_gaussian(1, sigma=8.0))[0] > 0.9


def test_random_order_is_chance():
    masks = np.zeros((300, 96, 96), bool)
    masks[:, 10:40, 20:60] = True
    for cell in (1, 12):
        maps = random_order(300, 0, cell)
        assert 0.08 < pointing_game(maps, masks).mean() < 0.19  # 0.130 and three standard errors
        np.testing.assert_allclose(energy_inside(maps, masks).mean(), 0.130, atol=0.004)
    cells = random_order(1, 0, 12)[0].reshape(8, 12, 8, 12)
    assert (cells == cells[:, :1, :, :1]).all() and len(np.unique(cells)) == 64
    np.testing.assert_array_equal(random_order(2, 0), random_order(2, 0))
    assert (random_order(2, 0) != random_order(2, 1)).mean() > 0.99


def test_cells_that_do_not_fill_the_image():
    with pytest.raises(InputError, match="cells of 7 pixels: expected a divisor of 96"):
        random_order(1, 0, 7)


@pytest.mark.parametrize("value", [-0.5, np.nan, np.inf])
@pytest.mark.parametrize("measure", [pointing_game, energy_inside, iou])
def test_values_that_are_no_heat(measure, value):
    maps = np.ones((2, 2, 4), np.float32)
    maps[1, 0, 3] = value
    with pytest.raises(InputError, match=r"map 1 is .* at \(0, 3\); expected numbers of at least 0"):
        measure(maps, MASKS[:2])


def test_nest_groups_by_hand():
    masks = np.zeros((5, 96, 96), bool)
    masks[0, 32:64, 40:72] = True  # three quarters inside
    masks[1, 40:50, 59:79] = True  # just a quarter
    masks[2, 40:50, 60:80] = True  # less
    masks[3, :32] = True
    groups = nest_groups(masks)
    assert {name: np.flatnonzero(rows).tolist() for name, rows in groups.items()} == {
        "central": [0, 1], "off centre": [2], "outside": [3]}


def test_nest_groups_of_the_generator_are_told_apart_by_the_label():
    patches = generate(60, 0)
    groups = nest_groups(patches.tumour_masks)
    positive = patches.labels == 1
    np.testing.assert_array_equal(groups["central"] | groups["off centre"], positive)
    assert groups["central"].sum() >= 10 and groups["off centre"].sum() >= 10
    np.testing.assert_array_equal(groups["outside"], patches.tumour_masks.any((1, 2)) & ~positive)


maps_and_masks = st.tuples(
    arrays.arrays(np.float32, (2, 4, 5), elements=st.floats(0, 1000, width=32).map(lambda x: np.float32(x).round(2))),
    arrays.arrays(bool, (2, 4, 5)).filter(lambda masks: (masks.any((1, 2)) & ~masks.all((1, 2))).all()))


@settings(max_examples=50, deadline=None)
@given(maps_and_masks, st.permutations(range(20)))
def test_what_holds_for_all_maps(given_maps, order):
    maps, masks = given_maps
    for measure in (pointing_game, energy_inside):
        inside = measure(maps, masks)
        np.testing.assert_allclose(inside + measure(maps, ~masks), 1, rtol=1e-6)
        # Neither the unit nor the arrangement of the pixels matters.
        np.testing.assert_allclose(measure(4 * maps, masks), inside, rtol=1e-6)
        moved = (array.reshape(2, 20)[:, list(order)].reshape(2, 4, 5) for array in (maps, masks))
        np.testing.assert_allclose(measure(*moved), inside, rtol=1e-6)
    overlap = iou(maps, masks)
    assert ((overlap >= 0) & (overlap <= 1)).all()
    np.testing.assert_array_equal(iou(4 * maps, masks), overlap)
    # More heat in the tumour is never worse.
    assert (energy_inside(maps + masks, masks) >= energy_inside(maps, masks) - 1e-6).all()
    assert (best_iou(overlap).mean() >= overlap.mean(0) - 1e-12).all()
