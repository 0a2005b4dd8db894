"""Checkpoints: the newest of each kind, whole or refused, on any number of devices."""

import shutil

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.models.variables import variable_shapes
from pcamjax.training.checkpoints import Checkpoints
from pcamjax.training.parallel import replicate

OPTIMIZER = optax.adam(1e-3)


@pytest.fixture(scope="module")
def state():
    tiny.register()
    return tiny.started("tiny", OPTIMIZER, seed=3)


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A folder with a checkpoint of step 7 under both names, written from two devices."""
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder)
    for kind in ("best", "last"):
        checkpoints.save(kind, replicate(state.replace(step=state.step + 7), jax.devices()[:2]), {"epochs": [{"a": 1}]})
    checkpoints.close()
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def steps(folder, kind):
    return sorted(path.name for path in (folder / kind).iterdir())


def restored(folder, like):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.restore("last", like)
    finally:
        checkpoints.close()


@pytest.mark.parametrize("devices", [1, 4])
def test_what_two_devices_saved_comes_back_on_others_to_the_bit(state, saved, devices):
    back, progress = restored(saved, replicate(state, jax.devices()[:devices]))
    assert int(back.step) == 7 and progress == {"epochs": [{"a": 1}]}
    for (path, wrote), read in zip(jax.tree.leaves_with_path(state.replace(step=back.step)), jax.tree.leaves(back),
                                   strict=True):
        assert len(read.sharding.device_set) == devices
        assert np.asarray(wrote).tobytes() == np.asarray(read).tobytes(), jax.tree_util.keystr(path)


def test_only_the_newest_of_each_kind_is_kept(state, copied):
    checkpoints = Checkpoints(copied)
    checkpoints.save("last", state.replace(step=state.step + 9), {"epochs": []})
    assert (checkpoints.latest_step("last"), checkpoints.latest_step("best")) == (9, 7)
    checkpoints.close()
    assert steps(copied, "last") == ["9"] and steps(copied, "best") == ["7"]
    assert {path.name for path in copied.iterdir()} == {"last", "best"}


def test_a_step_that_is_there_is_not_written_again(state, copied):
    before = {file: file.stat().st_mtime_ns for file in copied.rglob("*")}
    checkpoints = Checkpoints(copied)
    checkpoints.save("last", state.replace(step=state.step + 7), {"epochs": []})
    checkpoints.close()
    assert before == {file: file.stat().st_mtime_ns for file in copied.rglob("*")}


def test_without_a_checkpoint_there_is_no_step(tmp_path, state):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step("last") is None and not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="last: no checkpoint; train first"):
        checkpoints.restore("last", state)


def test_every_damaged_or_missing_file_is_named(state, copied):
    step = copied / "last" / "7"
    files = [file for file in step.rglob("*") if file.is_file() and file.name != "sha256.json"]
    assert {file.relative_to(step).parts[0] for file in files} >= {"variables", "training", "progress"}
    for file in files:
        whole = file.read_bytes()
        for damaged in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
            file.write_bytes(damaged)
            with pytest.raises(InputError, match=f"{file}: damaged, the checkpoint is not as it was written; restore"):
                restored(copied, state)
        file.unlink()
        with pytest.raises(InputError, match=f"{file}: missing"):
            restored(copied, state)
        file.write_bytes(whole)
    assert int(restored(copied, state)[0].step) == 7


def test_killed_between_a_checkpoint_and_its_hashes_a_run_goes_on(state, copied):
    (copied / "last" / "7" / "sha256.json").unlink()
    assert int(restored(copied, state)[0].step) == 7


def test_what_orbax_cannot_read_is_one_line(state, copied):
    """Orbax' threads fail with bare exceptions, which would reach the user as pages of tracebacks."""
    (copied / "last" / "7" / "sha256.json").unlink()
    (copied / "last" / "7" / "progress" / "metadata").write_text("{")
    with pytest.raises(InputError, match="last/7: not a whole checkpoint of this network") as refused:
        restored(copied, state)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_of_another_network_or_optimizer_is_refused(saved, state):
    checkpoints = Checkpoints(saved)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    other = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), variable_shapes("scratch1"))
    with pytest.raises(InputError, match="last/7/variables: a checkpoint of another network, .* is .* in this one"):
        checkpoints.restore_variables("last", other)
    checkpoints.close()
    with pytest.raises(InputError, match="last/7: not a whole checkpoint of this network and optimizer"):
        restored(saved, tiny.started("tiny", optax.sgd(1e-3, momentum=0.9), seed=3))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("RESOURCE_EXHAUSTED: writing")])
def test_a_disk_that_fills_up_leaves_the_checkpoint_of_before(state, copied, monkeypatch, error):
    def full(*arguments, **options):
        raise error
    checkpoints = Checkpoints(copied)
    with monkeypatch.context() as patch:
        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(InputError, match="last: checkpoint of step 8 cannot be written .*; free space and start"):
            checkpoints.save("last", state.replace(step=state.step + 8), {})
    checkpoints.close()
    assert steps(copied, "last") == ["7"] and int(restored(copied, state)[0].step) == 7


def test_too_little_space_is_noticed_before_anything_is_written(state, copied, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    checkpoints = Checkpoints(copied)
    with pytest.raises(InputError, match="last: .* GB needed, 0.00 GB free; free space"):
        checkpoints.save("last", state.replace(step=state.step + 8), {})
    checkpoints.close()
    assert steps(copied, "last") == ["7"]
