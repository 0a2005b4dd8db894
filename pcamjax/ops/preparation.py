"""What an inference computes of a network's variables alone, computed once for all batches, where a CPU wins by it.

There a convolution reads its kernel in another order than it is stored in, times the scales of BatchNorm. To arrange it
at every batch costs as much as to read it twice. An accelerator's compiler gets the program whole.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun
from jaxtyping import Array

from pcamjax.ops import compiled


def prepared(function: Callable) -> tuple[Callable, Callable]:
    """A function in two parts: what depends on its first argument alone, to be computed once, and the rest.

    The first part takes the function's arguments and returns arrays; the second takes a pair of the first argument and
    these, and the others. With compiled kernels both are for a CPU alone; without them the second part does it all.
    """
    def program_of(variables: Any, others: Any) -> tuple[ClosedJaxpr, Any, list[JaxprEqn], list[JaxprEqn], list[Any]]:
        program, result = jax.make_jaxpr(_on_cpu(function), return_shape=True)(variables, *others)
        return program, result, *_parts(program.jaxpr, len(jax.tree.leaves(variables)))

    def before(variables: Any, *others: Any) -> list[Array]:
        if not compiled.available():
            return []
        program, _, once, _, kept = program_of(variables, others)
        return _run(once, _inputs(program, variables), kept)

    def after(both: tuple[Any, list[Array]], *others: Any) -> Any:
        variables, arrays = both
        if not compiled.available():
            return function(variables, *others)
        program, result, _, rest, kept = program_of(variables, others)
        values = _inputs(program, variables, others) | dict(zip(kept, arrays, strict=True))
        return jax.tree.unflatten(jax.tree.structure(result), _run(rest, values, program.jaxpr.outvars))

    return before, after


def _on_cpu(function: Callable) -> Callable:
    """The function with no branches of its program but a CPU's, which asks for none of the others' operands."""
    def computed(*arguments: Any) -> Any:
        program, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        values = _run(program.jaxpr.eqns, _inputs(program, *arguments), program.jaxpr.outvars)
        return jax.tree.unflatten(jax.tree.structure(result), values)

    return computed


def _inputs(program: ClosedJaxpr, *arguments: Any) -> dict[Any, Any]:
    """The values of a program's constants and of its first inputs."""
    values = *program.consts, *jax.tree.leaves(arguments)
    return dict(zip((*program.jaxpr.constvars, *program.jaxpr.invars), values, strict=False))


def _parts(jaxpr: Jaxpr, count: int) -> tuple[list[JaxprEqn], list[JaxprEqn], list[Any]]:
    """The operations that need of its inputs none but the first `count`, the others, and what these want of those.

    What needs no input is in both. What would take much more memory than it is made of is not among the first.
    """
    fixed, known = set(jaxpr.constvars), set(jaxpr.invars[:count])
    once, rest = [], []
    for eqn in jaxpr.eqns:
        inputs = {var for var in eqn.invars if not isinstance(var, Literal)}
        larger = sum(var.aval.size for var in eqn.outvars) > 2 * sum(var.aval.size for var in inputs)
        if inputs <= fixed:
            fixed.update(eqn.outvars)
            once.append(eqn)
            rest.append(eqn)
        elif inputs <= fixed | known and not larger:
            known.update(eqn.outvars)
            once.append(eqn)
        else:
            rest.append(eqn)
    wanted = {id(var) for var in (*(var for eqn in rest for var in eqn.invars), *jaxpr.outvars)}
    kept = [var for eqn in once for var in eqn.outvars if id(var) in wanted and var not in fixed]
    return once, rest, kept


def _run(equations: list[JaxprEqn], values: dict[Any, Any], wanted: list[Any]) -> list[Any]:
    """What operations on a CPU make of some values, as far as it is wanted."""
    def read(atoms: list[Any]) -> list[Any]:
        return [atom.val if isinstance(atom, Literal) else values[atom] for atom in atoms]

    for eqn in equations:
        name, operands = eqn.primitive.name, read(eqn.invars)
        if name == "platform_index":
            results = [next(index for index, names in enumerate(eqn.params["platforms"])
                            if names is None or "cpu" in names)]
        elif name == "cond" and isinstance(operands[0], int):
            results = jaxpr_as_fun(eqn.params["branches"][operands[0]])(*operands[1:])
        else:
            results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
            results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))
    return read(wanted)
