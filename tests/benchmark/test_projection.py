"""The projection to H100s: what is counted of a step, and the arithmetic on it by hand."""

import jaxtyping
import pytest
import tiny

from pcamjax.benchmark.projection import Counted, count, epoch_seconds, largest_batch, markdown, step_seconds

MADE = Counted("made", 256, forward_flops=1e9, flops=256 * 3e9, bytes=10.28e9, temporary=2 * 10**9, state=10**8,
               trained=10_000_000, moments=5)


def test_a_step_is_counted_and_not_run():
    tiny.register()
    jaxtyping.config.update("jaxtyping_disable", True)  # while JAX puts its own marks where a state has arrays
    try:
        counted = count("tiny", 32)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert 2 < counted.flops / 32 / counted.forward_flops < 4  # forward, and backward by inputs and by kernels
    assert counted.moments == 6 and counted.temporary > 32 * 96 * 96 * 4
    assert counted.state > 12 * counted.trained  # parameters and two moments, and BatchNorm's statistics


def test_one_gpu_waits_for_the_longer_of_arithmetic_and_memory():
    assert step_seconds(MADE, "float32", 1) == pytest.approx(768e9 / (0.4 * 67e12))  # 28.7 ms
    assert step_seconds(MADE, "TF32", 1) == pytest.approx(10.28e9 / (0.7 * 3.35e12))  # 4.4 ms, of arithmetic 3.9
    assert step_seconds(MADE, "bfloat16", 1) == pytest.approx((5e9 + 0.28e9) / (0.7 * 3.35e12))


@pytest.mark.parametrize(("gpus", "link", "latency"), [(8, 450e9, 20e-6), (32, 50e9, 40e-6)])
def test_more_gpus_average_gradients_and_moments(gpus, link, latency):
    averages = step_seconds(MADE, "TF32", gpus) - step_seconds(MADE, "TF32", 1)
    assert averages == pytest.approx(2 * (gpus - 1) / gpus * 40e6 / link + 11 * latency)
    assert epoch_seconds(MADE, "TF32", gpus) == pytest.approx(262_144 // 256 // gpus * step_seconds(MADE, "TF32", gpus))


def test_the_largest_batch_fits_beside_all_patches():
    free = 72e9 - 294_912 * 27_648 - 1e8
    batch = largest_batch(MADE)
    assert batch * 2e9 / 256 <= free < 2 * batch * 2e9 / 256


def test_the_tables_have_a_row_a_network():
    assert [line.split(" | ")[0] for line in markdown([MADE]).splitlines() if "made" in line] == ["| made"] * 2
