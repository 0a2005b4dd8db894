"""What follows a convolution in inference, done by the convolution itself: each pass over a map costs a CPU time.

A function is traced, and its program evaluated once more with convolutions that wait: bias, BatchNorm by stored
statistics, a map that is added and ReLU are taken up until something else wants the map. An accelerator's compiler does
so by itself and gets the program as it was.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array

from pcamjax.ops import compiled
from pcamjax.ops.convolution import Pads, finished, finished_kind, finished_weights
from pcamjax.ops.materialised import barrier

CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


@dataclass(frozen=True, eq=False)
class _Padded:
    """Zeros around a map, which a convolution does not need to be there."""

    x: Array
    pads: Pads
    plain: Callable[[], Array]

    def compute(self) -> Array:
        """The map with them."""
        return self.plain()


@dataclass(frozen=True, eq=False)
class _Waiting:
    """clip(convolution * scale + shift + added, *limits) * gain + offset; `plain` computes it as the program did."""

    x: Array
    kernel: Array
    strides: tuple[int, int]
    pads: Pads
    plain: Callable[[], Array]
    scale: Array
    shift: Array
    added: Array | None = None
    limits: tuple[Array, Array] | None = None
    after: tuple[Array, Array] | None = None  # gain and offset
    taken: bool = False  # whether anything was taken up, padding included

    def compute(self) -> Array:
        """The map."""
        if not self.taken:
            return self.plain()
        nothing = jnp.zeros(0)
        added = nothing if self.added is None else self.added
        limits = jnp.stack(self.limits or (-jnp.inf, jnp.inf))
        convolution = self.x, self.kernel, self.strides, self.pads
        weights = finished_weights(*convolution, self.scale)

        def on_cpu() -> Array:
            return finished(*convolution, weights, self.shift, added, limits, *(self.after or (nothing, nothing)))

        return lax.platform_dependent(cpu=on_cpu, default=self.plain)

    def then(self, eqn: JaxprEqn, left: Any, right: Any) -> "_Waiting | None":
        """With the operation that comes next, if it can be taken up."""
        name, other = eqn.primitive.name, right if left is self else left
        if np.shape(other) in ((), (1, 1, 1, self.kernel.shape[-1])) and (
                name in ("add", "mul") or name == "sub" and left is self):
            factor, term = (other, 0) if name == "mul" else (1, other if name == "add" else -other)
            factor, term = (jnp.full_like(self.scale, jnp.ravel(value)) for value in (factor, term))
            if self.limits or self.added is not None:
                gain, offset = self.after or (1, 0)
                return replace(self, after=(gain * factor, offset * factor + term))
            return replace(self, scale=self.scale * factor, shift=self.shift * factor + term)
        if self.after:
            return None
        if name in ("max", "min") and np.shape(other) == ():
            bound = {"max": jnp.maximum, "min": jnp.minimum}[name]
            return replace(self, limits=tuple(bound(limit, other) for limit in self.limits or (-np.inf, np.inf)))
        depthwise = self.kernel.shape[2] != self.x.shape[-1]
        if name == "add" and np.shape(other) == eqn.outvars[0].aval.shape and not (
                self.limits or self.added is not None or depthwise):
            return replace(self, added=other)
        return None


def fused(function: Callable) -> Callable:
    """The function with its convolutions in float32 and what follows them fused, where the kernels are compiled.

    It computes the same to rounding, on an accelerator to the bit, and cannot be differentiated.
    """
    def computed(*arguments: Any) -> Any:
        if not compiled.available():
            return function(*arguments)
        program, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        values = _evaluate(program.jaxpr, [*program.consts, *jax.tree.leaves(arguments)])
        return jax.tree.unflatten(jax.tree.structure(result), [_complete(value) for value in values])

    return computed


def _evaluate(jaxpr: Jaxpr, inputs: list[Any]) -> list[Any]:
    """The outputs of a program, some of which may wait."""
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))
    uses = Counter(id(atom) for atoms in (*(eqn.invars for eqn in jaxpr.eqns), jaxpr.outvars) for atom in atoms)

    def read(atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        if uses[id(atom)] > 1:
            values[atom] = _complete(values[atom])
        return values[atom]

    for eqn in jaxpr.eqns:
        values.update(zip(eqn.outvars, _apply(eqn, [read(atom) for atom in eqn.invars]), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _apply(eqn: JaxprEqn, operands: list[Any]) -> list[Any]:
    """The results of an operation, calls as if they stood here; the last operand that waits may take it up."""
    name = eqn.primitive.name
    if name == "name" or eqn.params.get("name") == barrier.__name__:  # only for what is differentiated
        return operands
    if name in CALLS:
        called = eqn.params[CALLS[name]]
        if native := _native(called):
            return [_convolution(called, native, *operands)]
        return _evaluate(called.jaxpr, [*called.consts, *operands])
    last = next((operand for operand in reversed(operands) if isinstance(operand, _Waiting)), None)
    operands = [operand if operand is last else _complete(operand) for operand in operands]
    if last and len(operands) == 2 and (after := last.then(eqn, *operands)):
        return [replace(after, plain=partial(_bind, eqn, operands), taken=True)]
    operands = [_complete(operand) for operand in operands]
    if name == "pad" and (pads := _pads(*operands, eqn.params["padding_config"])):
        return [_Padded(operands[0], pads, partial(_bind, eqn, operands))]
    results = _bind(eqn, operands)
    return results if eqn.primitive.multiple_results else [results]


def _bind(eqn: JaxprEqn, operands: list[Any]) -> Any:
    """An operation as it stands in the program, on operands of which none waits any longer."""
    arrays = [operand.plain() if isinstance(operand, _Waiting) else operand for operand in operands]
    return eqn.primitive.bind(*arrays, **eqn.primitive.get_bind_params(eqn.params))


def _complete(value: Any) -> Any:
    """A value that waits no longer."""
    return value.compute() if isinstance(value, _Waiting | _Padded) else value


def _pads(x: Array, value: Any, edges: Any) -> Pads | None:
    """The zeros before and after the rows and columns of a map, None if it is not these alone that are added."""
    if x.ndim != 4 or isinstance(value, jax.core.Tracer) or value != 0 or min(map(min, edges)) < 0:
        return None
    if any(edges[0]) or any(edges[3]) or edges[1][2] or edges[2][2]:
        return None
    return edges[1][:2], edges[2][:2]


def _native(called: ClosedJaxpr) -> dict[str, Any] | None:
    """The parameters of what a convolution of ours is on an accelerator, None if it is none."""
    for choice in called.eqns[-1:]:
        if choice.primitive.name == "cond":
            for eqn in choice.params["branches"][-1].eqns[-1:]:
                if eqn.primitive.name == "conv_general_dilated":
                    return eqn.params
    return None


def _convolution(called: ClosedJaxpr, native: dict[str, Any], x: Any, kernel: Any) -> Any:
    """A convolution that waits, or its result where it cannot be fused."""
    strides, pads = native["window_strides"], native["padding"]
    x, kernel = x if isinstance(x, _Padded) else _complete(x), _complete(kernel)

    def plain() -> Array:
        return jaxpr_as_fun(called)(x.plain() if isinstance(x, _Padded) else x, kernel)[0]

    source = x
    if isinstance(x, _Padded):
        source = x.x
        pads = tuple((before + more, after + further) for (before, after), (more, further)
                     in zip(pads, x.pads, strict=True))
    if not finished_kind(source, kernel, strides, pads):
        return plain()
    filters = kernel.shape[-1:]
    return _Waiting(source, kernel, strides, pads, plain, jnp.ones(filters), jnp.zeros(filters),
                    taken=isinstance(x, _Padded))
