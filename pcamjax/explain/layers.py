"""Any inner layer of a network by its name: read its output, or put another in its place.

The one mechanism is linen's interception of `__call__`; networks need no hooks for it.
"""

from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from pcamjax.errors import InputError
from pcamjax.models.graph import Path, layer_path


def layer_names(module: nn.Module, variables: Mapping[str, Any], shape: tuple[int, ...]
                ) -> dict[str, tuple[int, ...]]:
    """The layers in the order in which they finish, with the shapes of their outputs for an input of `shape`.

    A layer goes by its own name, or by its path ("backbone/conv1") where several have that name. Left out are
    layers that are called more than once and those whose output is not a single array.
    """
    paths = _paths(module, variables, shape)
    names = [path[-1] for path in paths]
    return {path[-1] if names.count(path[-1]) == 1 else "/".join(path): output
            for path, output in paths.items()}


def apply_with_layer(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], layer: str,
                     replacement: Float[Array, "b ..."] | None = None
                     ) -> tuple[Float[Array, "b classes"], Float[Array, "b ..."]]:
    """The logits and the output of `layer`, or what the logits are with another output of it, in evaluation mode.

    Args:
      layer: a name as `layer_names` has it, or a path.
      replacement: of the shape of the layer's output.
    Raises:
      InputError: there is no such layer; the message lists those there are, the most similar names first.
    """
    path, caught = _find(module, variables, x.shape, layer), []

    def intercept(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if layer_path(context) != path:
            return output
        caught.append(output if replacement is None else replacement)
        return caught[-1]

    with nn.intercept_methods(intercept):
        logits = module.apply(variables, x)
    return logits, caught[-1]


def split_at(module: nn.Module, variables: Mapping[str, Any], x: Float[Array, "b h w c"], layer: str | None = None
             ) -> tuple[Float[Array, "b h2 w2 c2"], Callable[[Float[Array, "b h2 w2 c2"]], Float[Array, "b classes"]]]:
    """The maps that a layer puts out, and the function from such maps to the logits.

    Args:
      layer: a name as `layer_names` has it, or a path; by default the seam between the module's methods `features`
        and `head`, which costs no second pass through what lies before.
    Raises:
      InputError: there is no such layer, or what it puts out is not maps.
    """
    if layer is None:
        maps = module.apply(variables, x, method="features")
        return maps, lambda maps: module.apply(variables, maps, method="head")
    maps = apply_with_layer(module, variables, x, layer)[1]
    if maps.ndim != 4:
        raise InputError(f"layer {layer!r} puts out shape {maps.shape}, not maps [B,h,w,C]: choose an earlier one")
    return maps, lambda maps: apply_with_layer(module, variables, x, layer, maps)[0]


def _paths(module: nn.Module, variables: Mapping[str, Any], shape: tuple[int, ...]
           ) -> dict[Path, tuple[int, ...]]:
    calls: dict[Path, list] = {}

    def intercept(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if layer_path(context):
            calls.setdefault(layer_path(context), []).append(output)
        return output

    with nn.intercept_methods(intercept):
        jax.eval_shape(module.apply, variables, jax.ShapeDtypeStruct(shape, jnp.float32))
    return {path: outputs[0].shape for path, outputs in calls.items()
            if len(outputs) == 1 and isinstance(outputs[0], jax.Array)}


def _find(module: nn.Module, variables: Mapping[str, Any], shape: tuple[int, ...], layer: str) -> Path:
    paths = _paths(module, variables, shape)
    found = [path for path in paths if layer in (path[-1], "/".join(path))]
    if len(found) == 1:
        return found[0]
    names = sorted(layer_names(module, variables, shape), reverse=True,
                   key=lambda name: SequenceMatcher(None, layer, name).ratio())
    problem = f"layer {layer!r} names {len(found)} layers" if found else f"there is no layer {layer!r}"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    raise InputError(f"{problem}; choose one of {', '.join(names[:20])}{more}")
