"""The training loop: steps, validation after every epoch, checkpoints, and going on where a run was stopped."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, PyTree
from ml_collections import ConfigDict
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from pcamjax.data.batches import steps_per_epoch
from pcamjax.data.splits import Split
from pcamjax.data.store import IMAGE_SHAPE, Patches
from pcamjax.errors import InputError
from pcamjax.files import sha256_file
from pcamjax.host_memory import give_back_freed_memory
from pcamjax.hosts import any_process, is_first, require_same, several
from pcamjax.meter import Meter, Spent, none_if_nan
from pcamjax.models import model_spec
from pcamjax.models.variables import initial_variables, split_parameters
from pcamjax.ops.flops import plain_flops
from pcamjax.stopping import Stopped, StopRequest, stop_requests
from pcamjax.training.checkpoints import Checkpoints
from pcamjax.training.forward import Forward
from pcamjax.training.inputs import Inputs, choose_place, open_inputs
from pcamjax.training.logs import EpochLog, progress_bar
from pcamjax.training.losses import make_loss
from pcamjax.training.parallel import choose_devices, device_name, replicate, spread
from pcamjax.training.phases import Phase, make_phases
from pcamjax.training.run import RunFolder, data_identity, flatten
from pcamjax.training.step import (
    StepMetrics,
    TrainState,
    initial_state,
    make_forward,
    make_steps,
    make_train_step,
    start_phase,
)
from pcamjax.weights import find_weights, load_weights

BEST_METRICS = ("valid_auc", "valid_accuracy", "valid_loss")


@dataclasses.dataclass
class EpochSums:
    """What an epoch has added up so far; part of every checkpoint, so that a resumed epoch reports the same."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    energy_kwh: float = 0.0  # NaN once a stretch was not measured
    co2_kg: float = 0.0

    def spend(self, spent: Spent) -> None:
        """Adds what steps took."""
        self.seconds += spent.seconds
        self.energy_kwh += spent.kwh
        self.co2_kg += spent.co2_kg

    def add(self, steps: range, metrics: StepMetrics, images: int) -> None:
        """Adds steps, each of so many images; waits for their results.

        Raises:
          InputError: the loss of one, or what it makes of the parameters, is not finite; nothing of them is saved.
        """
        values = (np.asarray(x)[:len(steps)] for x in (metrics.loss, metrics.correct, metrics.parameter_norm))
        for step, loss, correct, norm in zip(steps, *values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise InputError(f"step {step}: the loss is {loss}, the parameters' norm {norm}; start in a new "
                                 "workdir with a lower learning rate or with optimizer.clip_norm; the last checkpoint "
                                 "is from before this step")
            self.loss += float(loss) * images
            self.correct += int(correct)
            self.images += images

    def means(self) -> dict[str, float]:
        """Loss, accuracy, speed and, if measured, energy of training."""
        energy = {} if math.isnan(self.energy_kwh) else {"energy_kwh": self.energy_kwh, "co2_kg": self.co2_kg}
        return {"train_loss": self.loss / self.images, "train_accuracy": self.correct / self.images,
                "seconds": self.seconds, "images_per_second": self.images / self.seconds, **energy}


def fit(config: ConfigDict, patches: Patches, split: Split, folder: RunFolder) -> dict[str, Any]:
    """Trains a network on `split` as `config` says, or goes on with the run in `folder`, and returns its record.

    Stopped at any moment and started again with the same arguments, a run ends with the same bits on CPUs.

    Raises:
      InputError: the configuration, the data or the folder do not allow it, another process trains there, or the loss
        stopped being finite.
      Stopped: SIGTERM or SIGINT came; the step under way was finished and saved.
    """
    _require_settings(config)
    train, valid = split.part("train"), split.part("valid")
    patches.require_labels(np.concatenate([train, valid]))
    steps = steps_per_epoch(len(train), config.batch_size)
    devices = choose_devices(config.parallel.devices, config.batch_size)
    choose_devices(config.parallel.devices, config.eval_batch_size)
    phases = make_phases(config.to_dict(), steps)
    total_steps = phases[-1].last_step
    place = choose_place(config.input.where, len(train) + len(valid), devices)
    loss = make_loss(config.loss.name, model_spec(config.model.name).activation, config.loss.class_weights)
    forward = Forward(config.model.name, config.eval_batch_size, devices, config.parallel.wrapper,
                      config.model.precision)
    meter = Meter("" if several() else config.carbon.country)  # which would be that of this host alone

    with contextlib.closing(Checkpoints(folder.checkpoints)) as checkpoints, contextlib.ExitStack() as stack:
        data = data_identity(patches, split)
        folder.require_fits(config, data)
        stack.enter_context(folder.lock("training"))
        stop = stack.enter_context(stop_requests())
        done = checkpoints.latest_step("last")
        if done is None:
            # Before the folder is taken: the file of weights may not be there, or be another network's.
            state, progress = _begin(config)
        else:
            state, progress = _restore(config, checkpoints, phases)
        settings = {key: value for key, value in flatten(config.to_dict()).items() if key != "data.path"}
        require_same({"configuration": settings, "store or split": data, "checkpoint or weights": (done, progress)})
        if is_first():  # all have read by now what is there
            folder.claim(config, data)
        state = replicate(state, devices)
        sums, number = EpochSums(**progress["sums"]), int(state.step)
        measured = _noted(progress.get("measured", {}), device=device_name(devices), method=meter.method,
                          region=meter.region)
        print(f"{config.model.name}: {len(train)} patches to train on, {steps} steps an epoch, {total_steps} in all, "
              f"images on the {place}, {len(devices)} device(s)"
              f"{f' of {jax.process_count()} processes' if several() else ''}; "
              f"began with weights {config.model.weights or 'drawn anew'}"
              + (f"; going on after step {number}" if number else ""))
        for phase in phases:
            print(f"phase {phase.name}: to step {phase.last_step}, {len(phase.frozen)} layers frozen")
        log = stack.enter_context(contextlib.closing(EpochLog(folder, progress["epochs"])))
        bar = stack.enter_context(progress_bar(total_steps * config.batch_size, number * config.batch_size, "train"))
        inputs = open_inputs(place, config, patches, train, valid, devices, number, total_steps)
        for index, phase in enumerate(phases, start=1):
            if number >= phase.last_step:
                continue
            if number == phase.first_step:
                state = replicate(start_phase(state, phase.optimizer, phase.frozen), devices)
            step = make_train_step(config.model.name, phase.optimizer, loss, config.augmentation.to_dict(),
                                   config.model.batch_norm_momentum, phase.frozen, config.model.precision,
                                   config.model.remat)
            dispatch = spread(make_steps(step, config.input.steps_per_dispatch), devices, config.parallel.wrapper,
                              batch_output=False, donate=True)
            while number < phase.last_step and not _stops_early(log.epochs, phases, config):
                if any_process(bool(stop.signal)):
                    raise Stopped(f"{stop.signal or 'a signal to another process'} came; step {number} is saved, start "
                                  "the same command again to go on")
                epoch_end = (number // steps + 1) * steps
                until = min(epoch_end, (number // config.checkpoint_every + 1) * config.checkpoint_every)
                state, number = _run_steps(dispatch, state, inputs, config, range(number + 1, until + 1), sums, bar,
                                           meter, stop)
                if number == epoch_end:
                    log.append({"epoch": number // steps, "step": number, "phase": index, **sums.means(),
                                **_validate(forward, state, inputs, patches.labels[valid], loss),
                                "learning_rate": float(phase.schedule(number - 1 - phase.first_step))})
                    sums = EpochSums()
                    bar.set_postfix({name: f"{log.epochs[-1][name]:.3f}" for name in ("train_loss", "valid_auc")})
                progress = {**progress, "epochs": log.epochs, "sums": dataclasses.asdict(sums), "measured": measured}
                if number == epoch_end and _best_epoch(log.epochs, config.best_metric) == number // steps:
                    checkpoints.save("best", state, progress)
                checkpoints.save("last", state, progress)
                give_back_freed_memory()
        record = _record(config, state, progress, split, phases)
        if is_first():
            record["cost"] = _cost(config, state, record, progress, checkpoints.variables_bytes("last"))
    if is_first():
        folder.write_record(record)
    return record


def _begin(config: ConfigDict) -> tuple[TrainState, dict[str, Any]]:
    """State and progress before the first step, and in the progress where the weights are from."""
    variables, source = initial_variables(config.model.name, config.seed), None
    if config.model.weights:
        file = find_weights(config.model.name, config.model.weights)
        variables, classifier = load_weights(file, config.model.name, variables)
        source = {"file": file.name, "sha256": sha256_file(file), "classifier": classifier}
    progress = {"epochs": [], "sums": dataclasses.asdict(EpochSums()), "weights": source}
    return initial_state(variables, config.seed), progress


def _restore(config: ConfigDict, checkpoints: Checkpoints, phases: list[Phase]) -> tuple[TrainState, dict[str, Any]]:
    """State and progress of the last checkpoint."""
    done = checkpoints.latest_step("last")
    phase = next(phase for phase in phases if done <= phase.last_step)
    drawn = initial_state(initial_variables(config.model.name, config.seed), config.seed)
    return checkpoints.restore("last", start_phase(drawn, phase.optimizer, phase.frozen))


def _require_settings(config: ConfigDict) -> None:
    """Raises InputError for a number that could only fail later, when work would be lost."""
    for name in ("epochs", "batch_size", "eval_batch_size", "checkpoint_every"):
        if config[name] < 1:
            raise InputError(f"config.{name} = {config[name]}: expected at least 1")
    if config.input.steps_per_dispatch < 1:
        raise InputError(f"config.input.steps_per_dispatch = {config.input.steps_per_dispatch}: expected at least 1")
    for name in ("seed", "early_stopping"):
        if config[name] < 0:
            raise InputError(f"config.{name} = {config[name]}: expected at least 0")
    if config.best_metric not in BEST_METRICS:
        raise InputError(f"config.best_metric = {config.best_metric!r}: choose one of {', '.join(BEST_METRICS)}")


def _run_steps(dispatch: Callable[..., tuple[TrainState, StepMetrics]], state: TrainState, inputs: Inputs,
               config: ConfigDict, steps: range, sums: EpochSums, bar: tqdm, meter: Meter, stop: StopRequest
               ) -> tuple[TrainState, int]:
    """Takes these steps, a few a dispatch, or those before a `stop`, adds them and what they took to `sums` and tells
    the last one."""
    limit, before, asked = config.input.steps_per_dispatch, None, False
    with meter.measure() as spent:
        for first in range(0, len(steps), limit):
            taken = steps[first:first + limit]
            items = [next(inputs.items) for _ in taken]
            items += items[-1:] * (limit - len(taken))
            state, metrics = dispatch(state, jax.tree.map(lambda *x: np.stack(x, axis=1), *items),
                                      np.int32(len(taken)), inputs.store)
            # What came before is read while this runs: the devices always have work, and their next batch in time.
            if before is not None:
                sums.add(*before, config.batch_size)
            before = taken, metrics
            bar.update(len(taken) * config.batch_size)
            # Several processes read their common answer a dispatch later too, so that no device waits for it.
            heard, asked = asked, any_process(bool(stop.signal))
            if heard if several() else asked:
                break
        sums.add(*before, config.batch_size)
    sums.spend(spent)
    return state, taken[-1]


def _validate(forward: Forward, state: TrainState, inputs: Inputs, labels: Int[np.ndarray, " n"], loss: Callable
              ) -> dict[str, float]:
    started = time.perf_counter()
    logits, labels = forward.logits(state.variables, inputs.images, inputs.valid), labels.astype(np.int32)
    if not np.isfinite(logits).all():
        raise InputError(f"step {int(state.step)}: not all validation logits are finite; start in a new workdir with a "
                         "lower learning rate or with optimizer.clip_norm")
    losses = loss(jnp.asarray(logits), jnp.asarray(labels))
    one_class = labels.min() == labels.max()
    return {"valid_loss": float(losses.mean()),
            "valid_accuracy": float((logits.argmax(-1) == labels).mean()),
            "valid_auc": math.nan if one_class else float(roc_auc_score(labels, logits[:, 1] - logits[:, 0])),
            "valid_seconds": time.perf_counter() - started}


def _best_epoch(epochs: list[dict[str, Any]], metric: str) -> int:
    """The number of the first epoch with the best value of `metric`; a loss is best when it is smallest."""
    sign = -1 if metric.endswith("loss") else 1
    values = [-math.inf if math.isnan(epoch[metric]) else sign * epoch[metric] for epoch in epochs]
    return epochs[values.index(max(values))]["epoch"]


def _stops_early(epochs: list[dict[str, Any]], phases: list[Phase], config: ConfigDict) -> bool:
    """Whether `early_stopping` epochs of the last phase have passed since the best one; 0 never stops."""
    own = [epoch for epoch in epochs if epoch["phase"] == len(phases)]
    return bool(config.early_stopping and own
                and own[-1]["epoch"] - _best_epoch(own, config.best_metric) >= config.early_stopping)


def _record(config: ConfigDict, state: TrainState, progress: dict[str, Any], split: Split, phases: list[Phase]
            ) -> dict[str, Any]:
    epochs, total = progress["epochs"], _size(state.variables)
    best = epochs[_best_epoch(epochs, config.best_metric) - 1]
    seconds = sum(epoch["seconds"] for epoch in epochs)
    images = len(epochs) * steps_per_epoch(len(split.indices["train"]), config.batch_size) * config.batch_size
    trained = [_size(split_parameters(state.params, phase.frozen)[0]) for phase in phases]
    return {"model": config.model.name, "parameters": {"total": total, "trainable": trained[-1]},
            "phases": [{"name": phase.name, "trainable": size, "steps": phase.last_step - phase.first_step,
                        "seconds": sum(epoch["seconds"] for epoch in epochs if epoch["phase"] == index)}
                       for index, (phase, size) in enumerate(zip(phases, trained, strict=True), start=1)],
            "weights": progress["weights"], "steps": int(state.step), "epochs": len(epochs),
            "ended": "finished" if int(state.step) == phases[-1].last_step else "stopped early",
            "train_seconds": seconds,
            "valid_seconds": sum(epoch["valid_seconds"] for epoch in epochs), "images_per_second": images / seconds,
            "split": {"name": split.name, "description": split.description, "leaks_slides": split.leaks_slides,
                      **{role: len(indices) for role, indices in split.indices.items()}},
            "best": {"metric": config.best_metric, "epoch": best["epoch"], "value": best[config.best_metric]}}


def _noted(measured: dict[str, list[str]], **found: str | None) -> dict[str, list[str]]:
    """What a run was measured on and by, each once in the order of use: it may go on elsewhere."""
    return {key: list(dict.fromkeys([*measured.get(key, []), *([value] if value else [])]))
            for key, value in found.items()}


def _cost(config: ConfigDict, state: TrainState, record: dict[str, Any], progress: dict[str, Any], size: int
          ) -> dict[str, Any]:
    """What the run cost, `size` bytes on disk among it; energy and CO2 are None unless every epoch was measured."""
    forward = jax.jit(make_forward(config.model.name, config.model.precision))
    image = jax.ShapeDtypeStruct((1, *IMAGE_SHAPE), np.uint8)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.variables)
    energy, co2 = (none_if_nan(sum(epoch.get(key, math.nan) for epoch in progress["epochs"]))
                   for key in ("energy_kwh", "co2_kg"))
    device, method, region = (", then ".join(progress.get("measured", {}).get(key, [])) or None
                              for key in ("device", "method", "region"))
    return {"train_ms_per_image": 1000 * record["train_seconds"] / record["split"]["train"],
            "parameters": record["parameters"]["total"], "bytes": size,
            "flops_per_image": plain_flops(forward, shapes, image), "energy_kwh": energy, "co2_kg": co2,
            "method": None if energy is None else method, "region": None if energy is None else region,
            "device": device or "not recorded"}


def _size(tree: PyTree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
