"""N devices take the step that one would, to float32 rounding, under both wrappers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.sharding import Mesh, PartitionSpec

from pcamjax.data.batches import Batch, train_batches
from pcamjax.training.joined import SMALL
from pcamjax.training.losses import make_loss
from pcamjax.training.optimizers import make_optimizer
from pcamjax.training.parallel import AXIS, choose_devices, mean_over_devices, replicate, spread
from pcamjax.training.step import make_train_step, start_phase


@pytest.fixture(scope="module")
def three_steps(noise):
    @functools.cache
    def run(devices: int, wrapper: str, model: str = "tiny", steps: int = 3, frozen: frozenset[str] = frozenset(),
            **options):
        config = tiny.config(noise.path)
        loss = make_loss(config.loss.name, "softmax")
        optimizer = make_optimizer(config.optimizer.to_dict(), 6)
        devices = choose_devices(devices, config.batch_size)
        step = spread(make_train_step(model, optimizer, loss, config.augmentation.to_dict(), frozen=frozen,
                                      **options), devices, wrapper, batch_output=False)
        state = start_phase(tiny.started(model, optimizer, seed=1), optimizer, frozen)
        if options.get("precision") == "float64":
            state = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state)
        state, history = replicate(state, devices), []
        for batch in train_batches(noise.images, noise.labels, np.arange(48), batch_size=8, seed=0, first_step=0,
                                   last_step=steps):
            state, metrics = step(state, batch)
            history.append(metrics)
        return state, history
    return run


def updates_apart(left, right) -> float:
    """The largest distance of two runs over parameters and statistics, in units of each tensor's norm."""
    return max(float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / (np.linalg.norm(np.asarray(b)) + 1e-3))
               for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


@pytest.mark.parametrize("wrapper", ["shard_map", "pmap"])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_devices_and_wrappers_take_the_same_steps(three_steps, devices, wrapper):
    assert updates_apart(three_steps(devices, wrapper, "smooth"), three_steps(1, "shard_map", "smooth")) < 2e-5


def test_small_and_large_arrays_are_averaged_each_in_its_place():
    sizes, devices = [(3,), (SMALL,), (2, 5), (), (2, SMALL)], choose_devices(4, 4)
    draw = np.random.default_rng(0).standard_normal
    tree = {str(index): draw((4, *size)).astype(np.float32) for index, size in enumerate(sizes)}
    mean = spread(lambda _, tree: mean_over_devices(jax.tree.map(lambda x: x[0], tree)), devices, "shard_map",
                  batch_output=False)((), tree)
    jax.tree.map(lambda found, x: np.testing.assert_allclose(found, x.mean(0), atol=1e-6), mean, tree)


@pytest.mark.parametrize("wrapper", ["shard_map", "pmap"])
def test_with_frozen_layers_too(three_steps, wrapper):
    frozen = frozenset({"block1_conv", "block1_bn"})
    one, two = (three_steps(devices, wrapper, "smooth", 3, frozen)[0] for devices in (1, 2))
    assert updates_apart(two, one) < 2e-5
    for collection in ("params", "batch_stats"):
        for name, layer in one.variables[collection]["backbone"].items():
            drawn = tiny.started("smooth", optax.sgd(0.1), seed=1).variables[collection]["backbone"][name]
            assert all(np.array_equal(a, b) == (name in frozen)
                       for a, b in zip(jax.tree.leaves(layer), jax.tree.leaves(drawn), strict=True)), name


def test_a_step_changes_every_parameter_and_statistic(three_steps, noise):
    state, _ = three_steps(1, "shard_map")
    optimizer = make_optimizer(tiny.config(noise.path).optimizer.to_dict(), 6)
    before = tiny.started("tiny", optimizer, seed=1)
    assert int(state.step) == 3
    for (path, old), new in zip(jax.tree.leaves_with_path(before.variables), jax.tree.leaves(state.variables),
                                strict=True):
        assert (np.asarray(old) != np.asarray(new)).any(), jax.tree_util.keystr(path)


def memory_of_a_step(remat: bool) -> int:
    """The bytes that a compiled step of `tiny` needs besides its arguments."""
    optimizer, mesh = optax.sgd(0.1), Mesh(np.asarray(jax.devices()[:1]), (AXIS,))
    step = make_train_step("tiny", optimizer, make_loss("binary_crossentropy", "softmax"), {}, remat=remat)
    leaves, tree = jax.tree.flatten(tiny.started("tiny", optimizer, 0))
    batch = Batch(jnp.zeros((8, 96, 96, 3), jnp.uint8), jnp.zeros(8, jnp.int32))
    mapped = jax.shard_map(lambda leaves, batch: step(tree.unflatten(leaves), batch), mesh=mesh, check_vma=False,
                           in_specs=(PartitionSpec(), PartitionSpec(AXIS)), out_specs=PartitionSpec())
    return jax.jit(mapped).lower(leaves, batch).compile().memory_analysis().temp_size_in_bytes


def test_what_is_computed_again_needs_no_memory_and_changes_nothing(three_steps):
    again, kept = (three_steps(1, "shard_map", remat=remat)[0] for remat in (True, False))
    assert updates_apart(again, kept) < 2e-5
    assert memory_of_a_step(remat=True) < 0.95 * memory_of_a_step(remat=False)


def test_in_bfloat16_the_losses_are_nearly_the_same_and_the_state_stays_float32(three_steps):
    (_, expected), (state, history) = (three_steps(1, "shard_map", "smooth", precision=name)
                                        for name in ("float32", "bfloat16"))
    losses, expected = ([float(metrics.loss) for metrics in steps] for steps in (history, expected))
    assert losses == pytest.approx(expected, rel=0.02) and losses != pytest.approx(expected, rel=1e-4)
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves((state, history)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("wrapper", ["shard_map", "pmap"])
@pytest.mark.parametrize("model", ["scratch1", "scratch2", "scratch3"])
def test_real_networks_take_the_same_step_on_two_devices(three_steps, monkeypatch, model, wrapper):
    # In float32 rounding tips ReLUs and maxima of some batches, which moves gradients by up to 3 %.
    monkeypatch.setattr("pcamjax.models.PRECISIONS", ("float64",))
    with jax.enable_x64(True):
        two, one = (three_steps(devices, name, model, 1, precision="float64")[0]
                    for devices, name in ((2, wrapper), (1, "shard_map")))
        assert {leaf.dtype for leaf in jax.tree.leaves(two.params)} == {jnp.dtype("float64")}
        assert updates_apart(two, one) < 1e-10
