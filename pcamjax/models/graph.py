"""The layers of a network as a graph: which reads which, what each puts out, and Keras' order of them.

It is not written down anywhere but found by watching one abstract call, through linen's interception.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Path = tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """A module that calls no other: its path and class, the layers it reads, and the shape of its output.

    A reading of the network's own input is left out of `inputs`.
    """

    path: Path
    kind: str
    inputs: tuple[Path, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its own name, which in the backbones is Keras'."""
        return self.path[-1]


def layer_path(context: nn.module.InterceptorContext) -> Path:
    """The path of the module whose `__call__` this is; () for the network itself and for other methods."""
    module = context.module
    # A module that shares its parent's scope has its parent's path, but not its name: it is the same layer.
    same_layer = context.method_name != "__call__" or not module.path or module.name != module.path[-1]
    return () if same_layer else module.path


def layer_graph(module: nn.Module, size: int = 96, **options: Any) -> dict[Path, Layer]:
    """The layers of a network in the order of their calls, for one image of `size`x`size` pixels.

    `options` go to `module.init_with_output`, for instance `train=False`.
    """
    found: dict[Path, Layer] = {}
    made_by: dict[int, Path] = {}  # which layer put out an array, by the array's id
    kept: list[Any] = []  # no id is given twice while its array lives
    inside: list[list[Path]] = [[]]  # the layers called so far within each call under way

    def intercept(call: Any, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        path = layer_path(context)
        if not path:
            return call(*args, **kwargs)
        arrays = [x for x in jax.tree.leaves(args) if isinstance(x, jax.Array)]
        inside.append([])
        output = call(*args, **kwargs)
        called = inside.pop()
        inside[-1].append(path)
        if not called:
            inputs = tuple(made_by[id(x)] for x in arrays if id(x) in made_by)
            found[path] = Layer(path, type(context.module).__name__, inputs, output.shape)
            made_by[id(output)] = path
            kept.append(output)
        return output

    def watch() -> Any:
        with nn.intercept_methods(intercept):
            return module.init_with_output(jax.random.key(0), jnp.zeros((1, size, size, 3)), **options)

    jax.eval_shape(watch)
    return found


def upstream(graph: Mapping[Path, Layer], names: Iterable[str]) -> frozenset[str]:
    """The names of these layers and of all that they are computed from.

    Raises:
      KeyError: there is no layer of that name.
    """
    by_name = {layer.name: path for path, layer in graph.items()}
    reached: set[Path] = set()
    ahead = [by_name[name] for name in names]
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            ahead += graph[path].inputs
    return frozenset(path[-1] for path in reached)


def keras_order(graph: Mapping[Path, Layer]) -> list[Layer]:
    """The layers as Keras lists them (keras/src/ops/function.py): deepest first, then by a walk from the output.

    The depth of a layer is the longest way from it to the output; the walk goes depth first, inputs in their order.
    """
    last = next(reversed(graph))
    walk: dict[Path, int] = {}
    ahead = [last]
    while ahead:
        path = ahead.pop()
        if path not in walk:
            walk[path] = len(walk)
            ahead += reversed(graph[path].inputs)
    depth = dict.fromkeys(walk, 0)
    for path in reversed(graph):  # calls come in an order in which no layer reads a later one
        if path in walk:
            for source in graph[path].inputs:
                depth[source] = max(depth[source], depth[path] + 1)
    return [graph[path] for path in sorted(walk, key=lambda path: (-depth[path], walk[path]))]
