"""A network over many patches: as many together as suit the device, each with the logits it has alone."""

from unittest.mock import Mock

import jax
import numpy as np
import pytest
import tiny

from pcamjax.models.variables import initial_variables
from pcamjax.training.forward import ON_A_CPU, Forward, images_together
from pcamjax.training.parallel import replicate


@pytest.mark.parametrize(("platform", "devices", "batch_size", "together"), [
    ("cpu", 1, 32, 32), ("cpu", 1, 256, ON_A_CPU), ("cpu", 2, 256, 2 * ON_A_CPU), ("gpu", 2, 256, 256)])
def test_only_cpus_take_a_large_batch_in_parts(platform, devices, batch_size, together):
    assert images_together(batch_size, [Mock(jax.Device, platform=platform)] * devices) == together


def test_the_logits_are_those_of_any_batch_size():
    tiny.register()
    images = np.random.default_rng(0).integers(0, 256, (ON_A_CPU + 5, 96, 96, 3), np.uint8)
    devices, order = jax.devices()[:1], np.arange(len(images))[::-1]
    variables = replicate(initial_variables("tiny", 0), devices)
    forwards = [Forward("tiny", size, devices) for size in (256, 7)]
    assert [forward.batch_size for forward in forwards] == [ON_A_CPU, 7]
    large, small = (forward.logits(variables, images, order) for forward in forwards)
    np.testing.assert_allclose(large, small, rtol=1e-4, atol=1e-6)
    alone = Forward("tiny", 1, devices).logits(variables, images, order[-1:])
    np.testing.assert_allclose(large[-1:], alone, rtol=1e-4, atol=1e-6)
