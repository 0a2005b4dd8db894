"""What is written for Keras is read back to the bit."""

import h5py
import jax
import numpy as np
import pytest

from pcamjax.errors import InputError
from pcamjax.models import create
from pcamjax.models.graph import keras_order, layer_graph
from pcamjax.models.variables import variable_shapes
from pcamjax.weights import export_keras, load_weights

NAME = "mobilenet_025"


def random_variables(name, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), variable_shapes(name))


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", [NAME, "scratch1"])
def test_the_same_variables_come_back(tmp_path, name):
    variables = random_variables(name)
    export_keras(tmp_path / "file.h5", name, variables)
    loaded = load_weights(tmp_path / "file.h5", name, random_variables(name, 1))
    assert loaded.classifier == "read"
    assert_equal(loaded.variables, variables)


def test_the_same_bytes_for_the_same_variables(tmp_path):
    for file in ("one.h5", "other.hdf5"):
        export_keras(tmp_path / file, NAME, random_variables(NAME))
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "other.hdf5").read_bytes()


def test_every_layer_is_listed_as_keras_lists_it(tmp_path):
    export_keras(tmp_path / "file.h5", NAME, random_variables(NAME))
    with h5py.File(tmp_path / "file.h5") as file:
        listed = [name.decode() for name in file.attrs["layer_names"]]
        assert sorted(file) == sorted(listed)
        assert file["conv_dw_1/conv_dw_1/depthwise_kernel"].shape == (3, 3, 8, 1)
        assert list(file["conv1_bn"].attrs["weight_names"]) == [
            b"conv1_bn/gamma", b"conv1_bn/beta", b"conv1_bn/moving_mean", b"conv1_bn/moving_variance"]
        assert len(file["conv1_relu"].attrs["weight_names"]) == 0
    assert listed == ["input_layer", *(layer.name for layer in keras_order(layer_graph(create(NAME), train=False)))]


@pytest.mark.parametrize("name", ["file.weights.h5", "file.keras", "file"])
def test_names_that_keras_reads_as_another_format_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}: .* call it .h5, without .weights"):
        export_keras(tmp_path / name, NAME, {})
    assert not list(tmp_path.iterdir())


def test_another_networks_variables_are_refused(tmp_path):
    (tmp_path / "file.h5").write_text("mine")
    for change in (lambda layer: layer.pop("kernel"), lambda layer: layer.update(bias=np.zeros(8)),
                   lambda layer: layer.update(kernel=np.zeros((3, 3, 3, 16)))):
        variables = random_variables(NAME)
        change(variables["params"]["backbone"]["conv1"])
        with pytest.raises(InputError, match=f"params/backbone/conv1/.* is not as in the variables of {NAME}"):
            export_keras(tmp_path / "file.h5", NAME, variables)
    assert (tmp_path / "file.h5").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "file.h5").write_text("mine")
    create_group = h5py.File.create_group

    def fail(file, name):
        if name == "conv_pw_5":
            raise OSError(28, "No space left on device")
        return create_group(file, name)

    monkeypatch.setattr(h5py.File, "create_group", fail)
    with pytest.raises(InputError, match="file.h5: cannot be written .No space left on device"):
        export_keras(tmp_path / "file.h5", NAME, random_variables(NAME))
    assert (tmp_path / "file.h5").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
