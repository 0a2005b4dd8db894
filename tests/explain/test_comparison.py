"""Methods side by side: with maps whose worth is known, and Grad-CAM on a small network from end to end."""

from functools import partial

import jax
import numpy as np
import pytest
import tiny

from pcamjax.data.synthetic import generate
from pcamjax.errors import InputError
from pcamjax.explain.cams import grad_cam
from pcamjax.explain.comparison import compare_methods
from pcamjax.explain.localisation import nest_groups
from pcamjax.explain.method_table import TABLES
from pcamjax.explain.methods import upsample
from pcamjax.models import model_spec
from pcamjax.models.variables import initial_variables

TRAINED, FRESH = {"params": "trained"}, {"params": "drawn anew"}


@pytest.fixture(scope="module")
def patches():
    made = generate(24, 3)
    keep = made.tumour_masks.any((1, 2))
    return made.images[keep], made.tumour_masks[keep]


def mean_of_rest(images):
    """A network that looks for darkness: its probability falls with the red that is left."""
    return 1 - images[..., 0].mean((1, 2)) / 255


@pytest.fixture(scope="module")
def rows(patches):
    images, masks = patches
    calls = []

    def oracle(variables, images):
        calls.append(("oracle", variables))
        shown = masks if variables is TRAINED else ~masks
        return shown.astype(np.float32), np.zeros(len(images), bool)

    def nothing(variables, images):
        calls.append(("nothing", variables))
        return np.zeros((len(images), 96, 96), np.float32), np.ones(len(images), bool)

    made = compare_methods({"oracle": oracle, "nothing": nothing}, TRAINED, FRESH, images, mean_of_rest,
                           masks=masks, groups=nest_groups(masks), steps=4)
    # Random weights first: that call compiles, the second is timed.
    assert calls == [("oracle", FRESH), ("oracle", TRAINED), ("nothing", FRESH), ("nothing", TRAINED)]
    return {(row.group, row.method, row.weights): row for row in made}


def test_rows_and_groups(rows, patches):
    methods = [("chance", "none"), ("centre Gaussian", "none"), ("random pixels", "none"), ("random cells", "none"),
               ("oracle", "trained"), ("oracle", "random"), ("nothing", "trained"), ("nothing", "random")]
    groups = {"all": np.ones(len(patches[0]), bool), **nest_groups(patches[1])}
    assert list(rows) == [(group, *method) for group in groups for method in methods]
    for (group, _, _), row in rows.items():
        assert row.patches == groups[group].sum() > 0


def test_every_figure_is_in_the_table_that_it_belongs_to(rows):
    named = [name for names in TABLES.values() for name in names]
    figures = {name for row in rows.values() for name in row.figures}
    assert figures - set(rows["all", "oracle", "trained"].margins) == set(named)


def test_the_oracle_is_above_all_rivals(rows):
    for group in ("all", "off centre"):
        row, area = rows[group, "oracle", "trained"], rows[group, "chance", "none"].figures["tumour energy"].mean
        for measure in ("pointing game", "tumour energy", "mean IoU", "best IoU"):
            assert row.figures[measure].mean == 1
            assert row.margins[measure]["random weights"].mean == pytest.approx(1)
            assert row.margins[measure]["chance"].mean == pytest.approx(1 - area)
            assert row.margins[measure]["centre Gaussian"].low > 0
        assert row.figures["zero maps"].mean == 0 and row.maps_per_second > 0
        assert row.figures["Spearman after randomisation"].mean == pytest.approx(-1)


def test_the_random_network_is_judged_by_where_it_points(rows):
    row = rows["all", "oracle", "random"]
    assert row.figures.keys() == {"pointing game", "tumour energy", "mean IoU", "best IoU", "centre energy",
                                  "zero maps"}
    assert row.figures["tumour energy"].mean == 0 and not row.margins and np.isnan(row.maps_per_second)


def test_a_map_of_zeros_is_chance(rows):
    row, chance = rows["all", "nothing", "trained"], rows["all", "chance", "none"]
    for measure in row.margins:
        value = chance.figures[measure]
        np.testing.assert_allclose(row.figures[measure], value)
        np.testing.assert_allclose(row.margins[measure]["chance"][:3], 0, atol=1e-9)
    assert chance.figures["centre energy"].mean == pytest.approx(1 / 9)
    assert row.figures["zero maps"].mean == 1 and row.figures["Spearman after randomisation"].n == 0
    # The order of equal values is random, so that deletion is, too.
    random = rows["all", "random pixels", "none"]
    assert row.figures["deletion"].mean == pytest.approx(random.figures["deletion"].mean, abs=0.01)


def test_what_deletion_and_insertion_lead_from_and_to(rows, patches):
    ends = rows["all", "chance", "none"].figures
    expected = mean_of_rest(patches[0]).mean()
    # This network sees the mean alone, which neither a blur nor an even colour changes.
    assert [ends[name].mean for name in ("intact", "all deleted", "none inserted")] == pytest.approx(
        [expected] * 3, abs=0.003)


def test_a_group_without_patches_is_left_out(patches):
    rows = compare_methods({}, TRAINED, FRESH, patches[0][:4], mean_of_rest, steps=1,
                           groups={"none": np.zeros(4, bool), "one": np.arange(4) == 2})
    assert [row.group for row in rows] == ["all"] * 4 + ["one"] * 4


def test_groups_are_the_same_values_of_fewer_patches(rows):
    groups = ("central", "off centre", "outside")
    for key in ("tumour energy", "deletion", "confidence drop"):
        figures = [rows[group, "centre Gaussian", "none"].figures[key] for group in groups]
        whole = rows["all", "centre Gaussian", "none"].figures[key]
        assert whole.n == sum(each.n for each in figures)
        assert whole.mean == pytest.approx(sum(each.n * each.mean for each in figures) / whole.n)


def test_maps_of_another_size(patches):
    with pytest.raises(InputError, match=r"coarse: maps \[., 8, 8\]"):
        compare_methods({"coarse": lambda variables, images: (np.ones((len(images), 8, 8)),
                                                              np.zeros(len(images), bool))},
                        TRAINED, FRESH, patches[0][:4], mean_of_rest)


def test_grad_cam_from_end_to_end(patches):
    tiny.register()
    spec, traces = model_spec("tiny"), []
    network, trained, fresh = spec.build(), initial_variables("tiny", 0), initial_variables("tiny", 1)

    @partial(jax.jit, static_argnames="layer")
    def maps(variables, x, layer):
        traces.append(layer)
        raw = upsample(grad_cam(network, variables, spec.preprocess(x), target="margin", layer=layer), (96, 96))
        return raw, raw.max((1, 2)) == 0

    def method(layer):
        def explain(variables, images):
            return tuple(map(np.asarray, maps(variables, images.astype(np.float32), layer)))
        return explain

    @jax.jit
    def probability(x):
        traces.append("predict")
        return jax.nn.softmax(network.apply(trained, spec.preprocess(x)))[:, 1]

    images = patches[0][:6]
    rows = compare_methods({"block 1": method("block1_conv2"), "block 3": method("block3_conv2")}, trained, fresh,
                           images, lambda x: probability(x.astype(np.float32)), steps=3, batch_size=4)
    assert sorted(traces) == ["block1_conv2", "block3_conv2", "predict"]
    assert [(row.method, row.weights) for row in rows[4:]] == [
        ("block 1", "trained"), ("block 1", "random"), ("block 3", "trained"), ("block 3", "random")]
    for row in rows[1:]:
        figures = row.figures
        assert all(-1e-9 <= estimate.low <= estimate.high <= 1 + 1e-9 for name, estimate in figures.items()
                   if estimate.n and " after " not in name)
        assert ("deletion" in figures) == (row.weights != "random")
    assert {"pointing game", "tumour energy"}.isdisjoint(rows[4].figures)
    assert rows[4].figures["SSIM after randomisation"].mean < 0.9
