"""The same batches wherever the patches lie, and where that is."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from pcamjax.errors import InputError
from pcamjax.training import inputs
from pcamjax.training.inputs import choose_place, open_inputs

GIGABYTE = 1_000_000_000
PCAM = 262_144 + 32_768  # 8.15 GB


def test_the_same_patches_train_and_validate_at_either_place(noise, monkeypatch):
    monkeypatch.setattr(inputs, "BATCH", 9)  # so that the last piece that is loaded is not full
    devices, rng = jax.devices()[:2], np.random.default_rng(0)
    train, valid = np.split(rng.permutation(93)[:50], [36])
    config = tiny.config(noise.path)
    host, device = (open_inputs(place, config, noise, train, valid, devices, 3, 11) for place in ("host", "device"))
    assert host.store is None and host.images is noise.images
    assert all(x.sharding.is_fully_replicated and len(x.sharding.device_set) == 2 for x in device.store)
    images, labels = map(np.asarray, device.store)
    assert len(images) == 50
    for batch, rows in zip(host.items, device.items, strict=True):
        np.testing.assert_array_equal(batch.images, images[rows])
        np.testing.assert_array_equal(batch.labels, labels[rows])
    np.testing.assert_array_equal(images[device.valid], noise.images[host.valid])


def device(free: float | None, platform: str = "gpu"):
    """A device with so many gigabytes free; None: it does not say."""
    stats = {"bytes_limit": 100 * GIGABYTE, "bytes_in_use": (100 - free) * GIGABYTE} if free is not None else None
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats)


@pytest.mark.parametrize(("place", "devices"), [
    ("device", [device(17)]), ("host", [device(16)]), ("host", [device(60), device(16)]), ("host", [device(None)]),
    ("host", [device(None, "cpu")]), ("host", [device(60, "cpu")])])
def test_images_go_to_a_device_with_memory_of_its_own_and_twice_what_they_need(place, devices):
    assert choose_place.__wrapped__("auto", PCAM, devices) == place


def test_who_asks_for_a_place_gets_it_if_there_is_room():
    choose = choose_place.__wrapped__
    assert choose("host", PCAM, [device(60)]) == "host"
    assert choose("device", PCAM, [device(9)]) == choose("device", PCAM, [device(None, "cpu")]) == "device"
    with pytest.raises(InputError, match="'device': 294912 images .* 8.2 GB, 8.0 GB are free on the device; choose"):
        choose("device", PCAM, [device(60), device(8)])
