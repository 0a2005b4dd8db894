"""The training step and the forward pass, each written for one device with a named axis."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int, PyTree, UInt32

from pcamjax.data.augment import augment
from pcamjax.data.batches import Batch
from pcamjax.models import model_input, model_spec
from pcamjax.models.layers import MAPS, Training
from pcamjax.models.variables import join_parameters, split_parameters
from pcamjax.ops.fusion import fused
from pcamjax.ops.positions import keys_by_position
from pcamjax.training.parallel import AXIS, mean_over_devices


class TrainState(struct.PyTreeNode):
    """Everything that a training step reads and replaces, all of it arrays.

    `key` holds the data of the run's random key; what a step draws comes from it and from `step`.
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    key: UInt32[Array, "..."]

    @property
    def variables(self) -> dict[str, PyTree]:
        """What the network's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class StepMetrics(struct.PyTreeNode):
    """Of a step on the global batch: mean loss, number of right answers, norm of the new trained parameters.

    Or of several steps, along one axis more.
    """

    loss: Float[Array, "*steps"]
    correct: Int[Array, "*steps"]
    parameter_norm: Float[Array, "*steps"]


def initial_state(variables: dict[str, PyTree], seed: int) -> TrainState:
    """The state before the first phase; dropout and augmentation will draw from `seed`."""
    return TrainState(step=jnp.zeros((), jnp.int32), params=variables["params"], batch_stats=variables["batch_stats"],
                      opt_state=(), key=jax.random.key_data(jax.random.key(seed)))


def start_phase(state: TrainState, optimizer: optax.GradientTransformation, frozen: frozenset[str] = frozenset()
                ) -> TrainState:
    """The state with a fresh optimizer for the parameters that are not frozen."""
    return state.replace(opt_state=optimizer.init(split_parameters(state.params, frozen)[0]))


def make_train_step(model_name: str, optimizer: optax.GradientTransformation,
                    loss: Callable[[Float[Array, "b 2"], Int[Array, " b"]], Float[Array, " b"]],
                    augmentation: Mapping[str, Any], batch_norm_momentum: float = 0.99,
                    frozen: frozenset[str] = frozenset(), precision: str = "float32",
                    remat: bool = False) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """A step on this device's piece of the global batch, to be wrapped by `parallel.spread`.

    Gradients, metrics and BatchNorm's moments are averaged over the devices, and the keys of augmentation and dropout
    follow an example's position in the global batch, so that N devices take the step that one would. The parameters of
    the layers `frozen` are constants of the loss: nothing is differentiated that only they would need. With `remat` the
    backward pass finds only what the convolutions put out, and what lies between them is computed once more.

    Raises:
      InputError: there is no such `precision`.
    """
    network = model_spec(model_name).build(Training(AXIS, batch_norm_momentum, frozen))
    prepare = model_input(model_name, precision)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        augment_key, dropout_key = jax.random.split(key)
        keys = keys_by_position(augment_key, len(batch.labels), AXIS)
        images = prepare(augment(batch.images, keys, augmentation))
        trained, fixed = split_parameters(state.params, frozen)

        def mean_loss(trained: PyTree) -> tuple[Float[Array, ""], tuple[Float[Array, "b 2"], PyTree]]:
            variables = {"params": join_parameters(trained, fixed), "batch_stats": state.batch_stats}
            logits, updated = network.apply(variables, images, train=True, rngs={"dropout": dropout_key},
                                            mutable=["batch_stats"])
            return loss(logits, batch.labels).mean(), (logits, updated.get("batch_stats", {}))

        if remat:
            mean_loss = jax.checkpoint(mean_loss, policy=jax.checkpoint_policies.save_only_these_names(MAPS))
        (value, (logits, batch_stats)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(trained)
        if jax.lax.axis_size(AXIS) > 1:  # XLA:CPU copies all gradients even to average them over one device
            gradient, value = mean_over_devices((gradient, value))
        updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
        trained = optax.apply_updates(trained, updates)
        metrics = StepMetrics(loss=value, correct=jax.lax.psum((logits.argmax(-1) == batch.labels).sum(), AXIS),
                              parameter_norm=optax.tree.norm(trained))
        return state.replace(step=state.step + 1, params=join_parameters(trained, fixed), batch_stats=batch_stats,
                             opt_state=opt_state), metrics

    return train_step


def make_steps(train_step: Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]], limit: int) -> Callable[
        [TrainState, PyTree, Int[Array, ""], Batch | None], tuple[TrainState, StepMetrics]]:
    """Up to `limit` steps as one program, to be wrapped by `parallel.spread`: (state, items, count, store) -> (state,
    the metrics of each step).

    `items` holds what the `count` steps read side by side along its second axis, of length `limit`: their batches, or
    where there is a `store` of all images and labels on the device, the rows of it that are in them.
    """
    def steps(state: TrainState, items: PyTree, count: Int[Array, ""], store: Batch | None
              ) -> tuple[TrainState, StepMetrics]:
        def step(index: int | Array, state: TrainState) -> tuple[TrainState, StepMetrics]:
            item = jax.tree.map(lambda x: x[:, index], items)
            if store is not None:
                item = jax.tree.map(lambda x: x.at[item].get(mode="promise_in_bounds"), store)
            return train_step(state, item)

        def next_step(index: Array, carry: tuple[TrainState, StepMetrics]) -> tuple[TrainState, StepMetrics]:
            state, metrics = step(index, carry[0])
            return state, jax.tree.map(lambda all, one: all.at[index].set(one), carry[1], metrics)

        if limit == 1:  # XLA compiles the body of a loop otherwise than what stands outside
            state, metrics = step(0, state)
            return state, jax.tree.map(jnp.atleast_1d, metrics)
        empty = StepMetrics(loss=jnp.zeros(limit), correct=jnp.zeros(limit, jnp.int32), parameter_norm=jnp.zeros(limit))
        # The number of steps is an argument: where fewer are left before a checkpoint, nothing is compiled anew.
        return jax.lax.fori_loop(0, count, next_step, (state, empty))

    return steps


def make_forward(model_name: str, precision: str = "float32"
                 ) -> Callable[[dict[str, PyTree], np.ndarray], Float[Array, "b 2"]]:
    """The network in evaluation mode: (variables, images 0..255) -> logits [B,2], not to be differentiated.

    Raises:
      InputError: there is no such `precision`.
    """
    network, prepare = model_spec(model_name).build(), model_input(model_name, precision)

    def forward(variables: dict[str, PyTree], images: Array) -> Float[Array, "b 2"]:
        return network.apply(variables, prepare(images.astype(jnp.float32)), train=False)

    return fused(forward)
