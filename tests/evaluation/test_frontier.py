"""The frontier of cost and value, by hand."""

import numpy as np

from pcamjax.evaluation.frontier import pareto_frontier


def test_the_frontier_is_what_no_other_model_beats():
    costs = np.array([1.0, 2.0, 3.0, 3.0, 0.5, np.nan, 1.0])
    values = np.array([0.8, 0.7, 0.9, 0.9, np.nan, 1.0, 0.8])
    # The second is dearer and worse than the first; equals leave each other on; a NaN neither beats nor is there.
    assert pareto_frontier(costs, values).tolist() == [True, False, True, True, False, False, True]
