"""The peak of resident memory, which Linux can be told to forget."""

import sys

import numpy as np
import pytest

from pcamjax.benchmark.memory import forget_peak_memory, peak_memory

SIZE = 2**26


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_a_peak_is_seen_and_forgotten():
    forget_peak_memory()
    before = peak_memory()
    np.ones(SIZE, np.uint8)
    with_array = peak_memory()
    forget_peak_memory()
    assert SIZE * 0.9 < with_array - before < SIZE * 1.5
    assert peak_memory() < with_array - SIZE / 2
