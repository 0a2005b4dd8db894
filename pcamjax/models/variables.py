"""A network's variables: drawn anew, as shapes alone, or in two parts, those that are trained and the others."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from pcamjax.models import model_spec


def initial_variables(model_name: str, seed: int, *, imagenet: bool = False) -> dict[str, PyTree]:
    """Freshly drawn parameters and BatchNorm statistics of a network, or of its form for ImageNet's classes."""
    # Jitted, so that the layers' outputs are never computed: only the shapes of the input matter. What runs once is
    # not worth optimising: on a CPU this compiles in a fifth of the time.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(_draw(model_name, imagenet), compiler_options=options)(jax.random.key(seed))


def variable_shapes(model_name: str, *, imagenet: bool = False) -> dict[str, PyTree]:
    """Shapes and dtypes of a network's variables, without drawing them."""
    return jax.eval_shape(_draw(model_name, imagenet), jax.random.key(0))


def split_parameters(params: PyTree, frozen: frozenset[str]) -> tuple[PyTree, PyTree]:
    """(trained, frozen): the backbone's layers named in `frozen`, and all else."""
    backbone = params["backbone"]
    fixed = {name: layer for name, layer in backbone.items() if name in frozen}
    return {**params, "backbone": {name: layer for name, layer in backbone.items() if name not in frozen}}, fixed


def join_parameters(trained: PyTree, fixed: PyTree) -> PyTree:
    """The inverse of `split_parameters`."""
    return {**trained, "backbone": {**trained["backbone"], **fixed}}


def _draw(model_name: str, imagenet: bool) -> Callable[[Key[Array, ""]], dict[str, PyTree]]:
    spec = model_spec(model_name)
    network, size = (spec.build(imagenet=True), spec.native_size) if imagenet else (spec.build(), 96)
    return lambda key: {"batch_stats": {}, **network.init(key, jnp.zeros((1, size, size, 3)))}
