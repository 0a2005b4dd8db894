"""What the benchmark has us do is what the jobs do, and its FLOPs are those of the network."""

import jax
import jaxtyping
import numpy as np
import pytest
import tiny
from flax.traverse_util import unflatten_dict

from pcamjax.benchmark import ours
from pcamjax.benchmark.material import Case, Material
from pcamjax.benchmark.preparation import prepare
from pcamjax.data.augment import augment
from pcamjax.models import create
from pcamjax.models.summary import summarise
from pcamjax.training import forward
from pcamjax.training.step import make_forward

BATCH = 4


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Makes the material of a task on the network "tiny"."""
    tiny.register()
    folder = tmp_path_factory.mktemp("material")
    prepare(folder, Case("", "tiny", BATCH))
    return lambda task, **options: Material(folder, Case(task, "tiny", BATCH, **options))


@pytest.fixture(scope="module")
def forward_flops(material):
    return BATCH * sum(layer.flops for layer in summarise(create("tiny")))


def test_material_is_drawn_from_the_seed(material, tmp_path):
    prepare(tmp_path, Case("", "tiny", BATCH))
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (material("infer").folder / file.name).read_bytes(), file.name
    inputs, pixels = (material("infer").array(name) for name in ("inputs", "pixels"))
    np.testing.assert_allclose(inputs, pixels / np.float32(255), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_train(material, forward_flops, steps):
    jaxtyping.config.update("jaxtyping_disable", True)  # while JAX puts its own marks where a state has arrays
    try:
        work = ours.make_train(material("train", learning_rate=0.01, steps_per_dispatch=steps))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    losses = [work.run() for _ in range(12 // steps)]
    assert work.steps == steps and np.isfinite(losses).all() and min(losses[6 // steps:]) < losses[0] / 2
    # Of one step: forward, backward by kernel and by input but for the first layer's input, and the optimizer.
    assert 2.5 * forward_flops < work.facts["flops"] < 4 * forward_flops
    assert work.facts["compile_seconds"] > 0 and work.facts["bytes"] > 0


@pytest.mark.parametrize(("devices", "most", "together"), [(1, 64, 4), (2, 64, 4), (1, 2, 2), (1, 3, 4)])
def test_inference_gives_the_logits_in_parts_or_not(material, forward_flops, devices, most, together, monkeypatch):
    monkeypatch.setattr(forward, "ON_A_CPU", most)
    compiled, sizes = ours._compiled, []
    monkeypatch.setattr(ours, "_compiled", lambda function, both, images, **options: sizes.append(len(images))
                        or compiled(function, both, images, **options))
    infer = material("infer", devices=devices)
    work = ours.make_infer(infer)
    assert sizes == [together]
    variables = {"batch_stats": {}, **unflatten_dict(infer.variables())}
    np.testing.assert_allclose(work.run(), jax.jit(make_forward("tiny"))(variables, infer.array("pixels")), atol=1e-5)
    assert forward_flops < work.facts["flops"] < 1.2 * forward_flops


def test_heat_maps_are_drawn(material, forward_flops):
    work = ours.make_grad_cam(material("grad_cam"))
    assert 0 < work.run() < 1
    assert work.facts["flops"] > forward_flops


def test_a_batch_is_augmented_as_the_case_says(material):
    config = {"rotation": 90.0, "flips": True}
    augmented = material("augment", augmentation=tuple(config.items()))
    images, keys = augmented.array("pixels"), jax.random.split(jax.random.key(0), BATCH)
    expected = jax.jit(lambda images, keys: augment(images, keys, config))(images, keys)
    assert ours.make_augment(augmented).run() == pytest.approx(float(expected[0, 0, 0, 0]))


def test_input_is_read_from_a_store(material, tmp_path):
    tiny.write_noise(tmp_path / "store")
    work = ours.make_input(material("input", data=str(tmp_path / "store")))
    assert work.run() == work.facts["images"] == ours.INPUT_BATCHES * BATCH


def test_cases_are_the_same_after_their_journey():
    case = Case("augment", augmentation=(("flips", True), ("zoom", 0.2)), devices=2)
    assert Case.from_json(case.as_json()) == case and hash(case.material) == hash(Case("").material)
