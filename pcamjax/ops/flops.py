"""How many operations a program is."""

from collections.abc import Callable
from typing import Any


def plain_flops(jitted: Callable, *arguments: Any) -> float:
    """FLOPs of the plain program, as an accelerator gets it, by the analysis of XLA, which compiles nothing for it.

    In the CPU's program a kernel or loop of ours counts as nothing or once.

    Args:
      jitted: what `jax.jit` gives.
      arguments: arrays, or their shapes.
    """
    return jitted.trace(*arguments).lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
