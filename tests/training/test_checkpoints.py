"""Checkpoints: the newest whole one of each kind, on any number of devices; damage is named and passed over."""

import re
import resource
import shutil

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.files import sha256_file, write_json
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


def save(folder, state, step, kind="last", progress=None):
    checkpoints = Checkpoints(folder)
    try:
        checkpoints.save(kind, state.replace(step=state.step + step), progress or {})
    finally:
        checkpoints.close()


def flip(file, where=-1):
    """Changes one bit."""
    data = bytearray(file.read_bytes())
    data[where] ^= 1
    file.write_bytes(bytes(data))


def test_the_two_newest_of_last_and_the_newest_of_best_are_kept(state, copied):
    checkpoints = Checkpoints(copied)
    checkpoints.latest_step("last")
    for step in (9, 12, 15):
        for kind in ("last", "best"):
            checkpoints.save(kind, state.replace(step=state.step + step), {})
        assert steps(copied, "last") == {9: ["7", "9"], 12: ["12", "9"], 15: ["12", "15"]}[step]
    assert (checkpoints.latest_step("last"), checkpoints.latest_step("best")) == (15, 15)
    checkpoints.close()
    assert steps(copied, "best") == ["15"] and {path.name for path in copied.iterdir()} == {"last", "best"}


def test_saving_again_replaces_that_step_and_the_later_ones_of_a_future_that_did_not_come(state, copied):
    for step in (9, 8):
        save(copied, state, step, progress={"of": step})
    assert steps(copied, "last") == ["8"]
    save(copied, state, 8, progress={"of": "again"})
    assert steps(copied, "last") == ["8"] and restored(copied, state)[1] == {"of": "again"}


def latest(folder, kind):
    checkpoints = Checkpoints(folder)
    try:
        return checkpoints.latest_step(kind)
    finally:
        checkpoints.close()


def test_until_one_that_is_written_has_its_name_the_one_before_is_there(state, copied, monkeypatch):
    """Whenever a name changes or goes, a process that starts then finds a whole checkpoint, never an earlier one."""
    seen = []

    def watch(owner, name):
        change = getattr(owner, name)

        def watched(*arguments, **options):
            seen.append(latest(copied, "last"))
            result = change(*arguments, **options)
            seen.append(latest(copied, "last"))
            return result
        monkeypatch.setattr(owner, name, watched)

    watch(type(copied), "rename")
    watch(shutil, "rmtree")
    save(copied, state, 9)
    save(copied, state, 11)
    assert seen == sorted(seen) and set(seen) == {7, 9, 11}


def test_what_killed_processes_have_left_goes_with_the_next_save(state, copied):
    for kind in ("last", "best"):
        for name in (".8.12345678", ".8.12345678.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-1"):
            shutil.copytree(copied / "last" / "7", copied / kind / name)
    assert latest(copied, "last") == 7
    save(copied, state, 8)
    assert steps(copied, "best") == ["7"] and steps(copied, "last") == ["8"]


def test_without_a_checkpoint_there_is_no_step(tmp_path, state):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step("last") is None and not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="last: no checkpoint; train first"):
        checkpoints.restore("last", state)


def test_every_damaged_or_missing_file_is_named_and_passed_over_for_the_one_before(state, copied, capsys):
    both = Checkpoints(copied)
    both.latest_step("last")
    both.save("last", state.replace(step=state.step + 8), {"of": 8})
    both.close()
    step = copied / "last" / "8"
    files = [file for file in step.rglob("*") if file.is_file()]
    assert {file.relative_to(step).parts[0] for file in files} >= {"variables", "training", "progress", "sha256.json"}

    def passed_over(file, what):
        assert latest(copied, "last") == 7
        if file.name == "sha256.json" and what == "damaged":  # then it may be that another file seems to be
            file, what = f"{step}/.*", "(damaged|missing)"
        err = capsys.readouterr().err
        assert re.fullmatch(f"warning: {file}: {what}, the checkpoint is not as it was written; passed over for that "
                            "of step 7\n", err), err

    for file in files:
        whole = file.read_bytes()
        for damaged in (whole[:-2], b"", bytes([whole[0] ^ 1]) + whole[1:], whole[:-1] + bytes([whole[-1] ^ 1])):
            file.write_bytes(damaged)
            passed_over(file, "damaged")
        file.unlink()
        passed_over(file, "missing")
        file.write_bytes(whole)
    assert restored(copied, state)[1] == {"of": 8} and not capsys.readouterr().err


def test_after_a_damaged_one_a_run_goes_on_and_the_whole_one_is_kept(state, copied):
    checkpoints = Checkpoints(copied)
    checkpoints.latest_step("last")
    checkpoints.save("last", state.replace(step=state.step + 8), {})
    checkpoints.close()
    (copied / "last" / "8" / "sha256.json").unlink()  # as a kill of versions before 0.2 could leave it
    checkpoints = Checkpoints(copied)
    assert checkpoints.latest_step("last") == 7
    checkpoints.save("last", state.replace(step=state.step + 8), {"of": "again"})
    checkpoints.close()
    assert steps(copied, "last") == ["7", "8"] and restored(copied, state)[1] == {"of": "again"}


@pytest.mark.parametrize("kind", ["last", "best"])
def test_with_no_whole_one_left_it_is_one_line(state, copied, kind, capsys):
    file = next(file for file in (copied / kind / "7" / "variables").rglob("*") if file.is_file())
    flip(file)
    checkpoints = Checkpoints(copied)
    with pytest.raises(InputError, match=f"{file}: damaged, the checkpoint is not as it was written, nor is any before "
                       "it; restore it, use the other --checkpoint, or train in a new workdir"):
        checkpoints.restore(kind, state)
    checkpoints.close()
    assert not capsys.readouterr().err


def test_what_orbax_cannot_read_is_one_line(state, copied):
    """Orbax' threads fail with bare exceptions, which would reach the user as pages of tracebacks."""
    file = copied / "last" / "7" / "progress" / "metadata"
    file.write_text("{")
    write_json(copied / "last" / "7" / "sha256.json", {"progress/metadata": sha256_file(file)})
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
        patch.setattr(ocp.Checkpointer, "save", full)
        with pytest.raises(InputError, match="last: checkpoint of step 8 cannot be written .*; free space and start"):
            checkpoints.save("last", state.replace(step=state.step + 8), {})
    checkpoints.close()
    assert steps(copied, "last") == ["7"] and int(restored(copied, state)[0].step) == 7


def test_files_that_cannot_grow_leave_the_checkpoint_of_before(state, copied):
    """The limit on a file's size stops writes where a full disk would, in the libraries below Orbax too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(copied)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(InputError, match="last.* cannot be written .*; free space") as refused:
            checkpoints.save("last", state.replace(step=state.step + 8), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    checkpoints.close()
    assert "\n" not in str(refused.value)
    assert steps(copied, "last") == ["7"] and int(restored(copied, state)[0].step) == 7


def test_too_little_space_is_noticed_before_anything_is_written(state, copied, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    checkpoints = Checkpoints(copied)
    with pytest.raises(InputError, match="last: .* GB needed, 0.00 GB free; free space"):
        checkpoints.save("last", state.replace(step=state.step + 8), {})
    checkpoints.close()
    assert steps(copied, "last") == ["7"]
