"""How many operations a program is, and how many bytes its kernels touch."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal


def plain_flops(jitted: Callable, *arguments: Any) -> float:
    """FLOPs of the plain program, as an accelerator gets it, by the analysis of XLA, which compiles nothing for it.

    In the CPU's program a kernel or loop of ours counts as nothing or once.

    Args:
      jitted: what `jax.jit` gives.
      arguments: arrays, or their shapes.
    """
    return jitted.trace(*arguments).lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]


def kernel_bytes(function: Callable, *arguments: Any) -> int:
    """Bytes of the arrays that a program's compiled kernels read and write, which XLA does not count; a loop's once.

    Args:
      function: what is compiled for a CPU.
      arguments: arrays, or their shapes.
    """
    program = jax.make_jaxpr(function)(*arguments).jaxpr
    return sum(var.aval.size * var.aval.dtype.itemsize for eqn in _equations(program)
               if eqn.primitive.name == "ffi_call" for var in (*eqn.invars, *eqn.outvars)
               if not isinstance(var, Literal))


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Those of a program and of all programs within it."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(eqn.params, is_leaf=lambda value: isinstance(value, ClosedJaxpr | Jaxpr)):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _equations(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
