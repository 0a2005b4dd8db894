import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.models import create
from pcamjax.models.summary import summarise
from pcamjax.models.variables import initial_variables
from pcamjax.stopping import Stopped
from pcamjax.training.checkpoints import Checkpoints
from pcamjax.training.loop import EpochSums, fit
from pcamjax.training.phases import make_phases
from pcamjax.training.run import RunFolder
from pcamjax.training.step import StepMetrics, initial_state, start_phase

TIMES = ("seconds", "valid_seconds", "images_per_second")


def epochs(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def final_state(folder: Path, config):
    phase = make_phases(config.to_dict(), 6)[-1]
    state = initial_state(initial_variables("tiny", config.seed), config.seed)
    like = start_phase(state, phase.optimizer, phase.frozen)
    checkpoints = Checkpoints(folder / "checkpoints")
    state, progress = checkpoints.restore("last", like)
    checkpoints.close()
    return state


def assert_equal_to_the_bit(left, right):
    for (path, a), b in zip(jax.tree.leaves_with_path(left), jax.tree.leaves(right), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


@pytest.fixture(scope="module")
def finished(noise, tmp_path_factory):
    """A run of three epochs, in this process and without interruption."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "whole")
    record = fit(tiny.config(noise.path), noise, tiny.split(noise), folder)
    return folder, record


def test_a_run_leaves_its_record_metrics_and_checkpoints(finished):
    folder, record = finished
    assert record["ended"] == "finished" and record["steps"] == 18 and record["epochs"] == 3
    assert record["split"]["train"] == 48
    lines = epochs(folder.path)
    assert [line["step"] for line in lines] == [6, 12, 18]
    assert record["best"]["value"] == max(line["valid_auc"] for line in lines)
    assert {"train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "learning_rate"} <= set(lines[0])
    assert Checkpoints(folder.checkpoints).latest_step("last") == 18
    assert Checkpoints(folder.checkpoints).latest_step("best") == 6 * record["best"]["epoch"]
    assert list(folder.tensorboard.glob("events*"))


def test_a_finished_run_started_again_changes_nothing(finished, noise):
    folder, record = finished
    before = epochs(folder.path)
    again = fit(tiny.config(noise.path), noise, tiny.split(noise), folder)
    assert again["steps"] == 18 and epochs(folder.path) == before


def test_killed_in_mid_epoch_and_resumed_a_run_ends_with_the_same_bits(finished, noise, tmp_path, monkeypatch):
    folder, _ = finished
    command = [sys.executable, str(Path(__file__).with_name("run_tiny.py")), str(noise.path), str(tmp_path / "run")]
    # The same bits need the same number of devices, visible ones included: XLA divides its threads among them.
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(jax.device_count()))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The checkpoint of step 8 lies inside the second epoch.
    deadline = time.monotonic() + 240
    while not (tmp_path / "run" / "checkpoints" / "last" / "8").is_dir():
        assert process.poll() is None and time.monotonic() < deadline, "ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "record.json").exists(), "finished before it was killed"
    subprocess.run(command, check=True, capture_output=True)
    assert epochs(tmp_path / "run") == epochs(folder.path)
    config = tiny.config(noise.path)
    assert_equal_to_the_bit(final_state(tmp_path / "run", config), final_state(folder.path, config))


def stopped_at(step: int, config, noise, folder: Path, monkeypatch) -> None:
    """A run that is interrupted right after it has saved the checkpoint of a step."""
    save = Checkpoints.save

    def save_and_stop(checkpoints, kind, state, progress):
        save(checkpoints, kind, state, progress)
        if kind == "last" and int(state.step) == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Checkpoints, "save", save_and_stop)
        fit(config, noise, tiny.split(noise), RunFolder(folder))
    assert Checkpoints(folder / "checkpoints").latest_step("last") == step


def test_a_run_says_what_it_cost(finished, noise):
    folder, record = finished
    cost = record["cost"]
    assert cost["train_ms_per_image"] == pytest.approx(1000 * record["train_seconds"] / 48)
    assert cost["parameters"] == record["parameters"]["total"] and "cores of" in cost["device"]
    files = [file for file in (folder.checkpoints / "last" / "18" / "variables").rglob("*") if file.is_file()]
    assert cost["bytes"] == sum(len(file.read_bytes()) for file in files) > 4 * cost["parameters"] / 2
    flops = sum(layer.flops for layer in summarise(create("tiny")))
    assert flops < cost["flops_per_image"] < 1.2 * flops
    assert [cost[key] for key in ("energy_kwh", "co2_kg", "method", "region")] == [None] * 4


def test_energy_adds_up_over_stops_and_is_not_known_if_a_part_was_not_measured(noise, tmp_path, monkeypatch):
    monkeypatch.setattr("pcamjax.training.loop.Meter", tiny.CountingMeter)
    known = tiny.config(noise.path, **{"carbon.country": "FRA"})
    stopped_at(8, known, noise, tmp_path / "run", monkeypatch)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    cost = fit(known, noise, tiny.split(noise), RunFolder(tmp_path / "run"))["cost"]
    # Six stretches: up to the steps 4, 6, 8, 12, 16 and 18.
    assert (cost["energy_kwh"], cost["co2_kg"], cost["method"], cost["region"]) == (6, 60, "counting", "FRA")
    assert cost["train_ms_per_image"] == pytest.approx(1000 * 6 / 48)
    cost = fit(tiny.config(noise.path), noise, tiny.split(noise), RunFolder(tmp_path / "copy"))["cost"]
    assert [cost[key] for key in ("energy_kwh", "co2_kg", "method", "region")] == [None] * 4
@pytest.mark.parametrize(("number", "step", "saved"), [(signal.SIGTERM, 1, 2), (signal.SIGINT, 7, 8)])
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_to_the_same_bits(finished, noise, tmp_path, monkeypatch,
                                                                            number, step, saved):
    folder, _ = finished
    config = tiny.config(noise.path, checkpoint_every=100)
    add = EpochSums.add

    def add_and_kill(sums, steps, *rest):
        add(sums, steps, *rest)
        if steps[0] == step:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patched, pytest.raises(Stopped, match=f"{number.name} came; step {saved} is saved"):
        patched.setattr(EpochSums, "add", add_and_kill)
        fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    assert handlers == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    assert Checkpoints(tmp_path / "run" / "checkpoints").latest_step("last") == saved
    fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    assert epochs(tmp_path / "run") == epochs(folder.path)
    assert_equal_to_the_bit(final_state(tmp_path / "run", config), final_state(folder.path, config))


def test_two_trainings_do_not_meet_in_a_folder(finished, noise):
    folder, _ = finished
    with folder.lock("training"), pytest.raises(InputError, match="whole: process .* is at work there; wait for its"):
        fit(tiny.config(noise.path), noise, tiny.split(noise), RunFolder(folder.path))


@pytest.mark.parametrize("stop", [4, 6])
def test_stopped_in_the_first_phase_or_at_its_end_a_run_ends_with_the_same_bits(finished, noise, tmp_path, monkeypatch,
                                                                                stop):
    folder, _ = finished
    config = tiny.config(noise.path)
    stopped_at(stop, config, noise, tmp_path / "run", monkeypatch)
    fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    assert epochs(tmp_path / "run") == epochs(folder.path)
    assert_equal_to_the_bit(final_state(tmp_path / "run", config), final_state(folder.path, config))


def test_with_its_images_on_the_device_a_run_ends_with_the_same_bits(finished, noise, tmp_path):
    folder, _ = finished
    config = tiny.config(noise.path, **{"input.where": "device"})
    fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    assert epochs(tmp_path / "run") == epochs(folder.path)
    assert_equal_to_the_bit(final_state(tmp_path / "run", config), final_state(folder.path, config))


def test_with_several_steps_a_dispatch_and_resumed_elsewhere_a_run_takes_the_same_steps(finished, noise, tmp_path,
                                                                                        monkeypatch):
    """To rounding: XLA sums in another order in a loop. Three steps a dispatch divide neither 4 nor 6."""
    folder, _ = finished
    config = tiny.config(noise.path, **{"input.steps_per_dispatch": 3})
    stopped_at(8, config, noise, tmp_path / "run", monkeypatch)
    config.input, config.parallel.devices = {"where": "device", "steps_per_dispatch": 5}, 2
    fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    for line, expected in zip(epochs(tmp_path / "run"), epochs(folder.path), strict=True):
        assert line == pytest.approx(expected, rel=1e-3)
    for a, b in zip(jax.tree.leaves(final_state(tmp_path / "run", config)),
                    jax.tree.leaves(final_state(folder.path, config)), strict=True):
        assert np.linalg.norm(a - b) <= 1e-3 * (np.linalg.norm(b) + 1e-3)


def test_each_phase_trains_its_own_layers_and_no_other(finished, noise):
    """After the whole run the frozen layers are as drawn; after the first phase all of the backbone is."""
    folder, record = finished
    config = tiny.config(noise.path)
    drawn, ended = initial_variables("tiny", config.seed), final_state(folder.path, config).variables
    same = {(collection, part, name): all(np.array_equal(a, b) for a, b in zip(
                jax.tree.leaves(layer), jax.tree.leaves(ended[collection][part][name]), strict=True))
            for collection, parts in drawn.items() for part, layers in parts.items() for name, layer in layers.items()}
    assert {key for key, equal in same.items() if equal} == {
        *(("params", "backbone", name) for name in ("block1_conv1", "block1_bn1", "block1_conv2", "block1_bn2")),
        *(("batch_stats", "backbone", name) for name in ("block1_bn1", "block1_bn2"))}
    assert [phase["name"] for phase in record["phases"]] == ["head", "network"]
    head, network = (phase["trainable"] for phase in record["phases"])
    assert head == sum(x.size for x in jax.tree.leaves(drawn["params"]["classifier"])) < network
    assert [line["phase"] for line in epochs(folder.path)] == [1, 2, 2]
    assert [line["learning_rate"] for line in epochs(folder.path)][0] == pytest.approx(1e-3)


def test_the_backbone_rests_while_the_classifier_is_trained(noise, tmp_path):
    config = tiny.config(noise.path, **{"head.epochs": 1, "epochs": 1, "model.frozen": "backbone"})
    fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    drawn, ended = initial_variables("tiny", config.seed), final_state(tmp_path / "run", config).variables
    assert_equal_to_the_bit(ended["params"]["backbone"], drawn["params"]["backbone"])
    assert_equal_to_the_bit(ended["batch_stats"], drawn["batch_stats"])
    assert not np.array_equal(ended["params"]["classifier"]["hidden"]["logits"]["kernel"],
                              drawn["params"]["classifier"]["hidden"]["logits"]["kernel"])


def test_another_configuration_is_refused_and_nothing_is_touched(finished, noise):
    folder, _ = finished
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"config.json.*seed = 0, asked for is 1"):
        fit(tiny.config(noise.path, seed=1), noise, tiny.split(noise), folder)
    assert before == {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}


def test_nan_stops_the_run_and_names_the_step(noise, tmp_path):
    config = tiny.config(noise.path, **{"optimizer.schedule.learning_rate": 1e30})
    with pytest.raises(InputError, match=r"step \d+: the loss is .*learning rate"):
        fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))


def test_of_several_steps_the_first_that_is_not_finite_is_named():
    nan, sums = float("nan"), EpochSums()
    metrics = StepMetrics(loss=jnp.array([1.0, 2.0, 3.0, nan]), correct=jnp.array([3, 4, 5, 6]),
                          parameter_norm=jnp.ones(4))
    sums.add(range(8, 11), metrics, 8)  # of four steps three were taken
    assert (sums.loss, sums.correct, sums.images) == (48.0, 12, 24)
    with pytest.raises(InputError, match="step 11: the loss is nan"):
        sums.add(range(8, 12), metrics, 8)
    with pytest.raises(InputError, match="step 9: the loss is 2.0, the parameters' norm inf"):
        sums.add(range(8, 11), metrics.replace(parameter_norm=jnp.array([1.0, float("inf"), nan, 1.0])), 8)


@pytest.mark.parametrize(("key", "value"), [
    ("epochs", 0), ("batch_size", 0), ("eval_batch_size", 0), ("checkpoint_every", 0), ("seed", -1),
    ("early_stopping", -1), ("head.epochs", -1), ("model.frozen", "block9"), ("model.weights", "missing.h5"),
    ("best_metric", "valid_aoc"), ("parallel.devices", -1), ("input.where", "disk"), ("input.steps_per_dispatch", 0),
    ("model.precision", "float16")])
def test_a_setting_that_could_only_fail_later_is_refused_before_the_folder_is_taken(noise, tmp_path, key, value):
    with pytest.raises(InputError, match=key.split(".")[-1]):
        fit(tiny.config(noise.path, **{key: value}), noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_early_stopping_ends_a_run_that_no_longer_improves(noise, tmp_path):
    # A rate this small changes no prediction, so the first epoch stays the best.
    config = tiny.config(noise.path, early_stopping=1, epochs=50, best_metric="valid_accuracy",
                         **{"optimizer.schedule.learning_rate": 1e-12})
    config.optimizer.momentum = 0.0
    record = fit(config, noise, tiny.split(noise), RunFolder(tmp_path / "run"))
    assert record["ended"] == "stopped early" and record["epochs"] < 50


def test_training_needs_labels_and_its_parts(noise, tmp_path):
    split = tiny.split(noise)
    unlabelled = type(split)(split.name, {**split.indices, "train": split.indices["test"]}, None, "")
    with pytest.raises(InputError, match="4 of 45 patches have no label"):
        fit(tiny.config(noise.path), noise, unlabelled, RunFolder(tmp_path / "run"))
    without = type(split)(split.name, {"train": split.indices["train"]}, None, "")
    with pytest.raises(InputError, match="no part 'valid'"):
        fit(tiny.config(noise.path), noise, without, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_nothing_is_compiled_after_the_first_epoch_of_a_phase(noise, tmp_path):
    """A run with longer phases compiles just as many programs."""
    compiled = []

    def listen(event: str, seconds: float, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    def programs_of(head: int, rest: int) -> int:
        compiled.clear()
        jax.clear_caches()
        config = tiny.config(noise.path, **{"head.epochs": head, "epochs": rest})
        fit(config, noise, tiny.split(noise), RunFolder(tmp_path / f"{head}_{rest}"))
        return len(compiled)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        short, long = programs_of(head=1, rest=1), programs_of(head=2, rest=3)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert long == short > 3
