"""Which models no other one beats in cost and in value at once."""

import numpy as np
from jaxtyping import Bool, Float


def pareto_frontier(costs: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether no other model costs at most as much and is worth at least as much, with one of the two strictly so.

    A NaN in either keeps a model off the frontier, and lets it beat none.
    """
    at_most, at_least = costs[None] <= costs[:, None], values[None] >= values[:, None]
    strictly = (costs[None] < costs[:, None]) | (values[None] > values[:, None])
    return ~(at_most & at_least & strictly).any(1) & np.isfinite(costs) & np.isfinite(values)
