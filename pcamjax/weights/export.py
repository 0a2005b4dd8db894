"""A network's weights as a file that Keras loads."""

import os

import h5py
import numpy as np
from flax import traverse_util
from jaxtyping import PyTree

from pcamjax.errors import InputError
from pcamjax.files import atomic_file
from pcamjax.weights.tensors import keras_layers, swap_axes


def export_keras(path: str | os.PathLike, model_name: str, variables: PyTree, *, imagenet: bool = False) -> None:
    """Writes variables as HDF5 in Keras' legacy layout, for `load_weights(path)` of the same model in Keras.

    That is the flat functional model: the application without its top, then the layers of our classifier; with
    `imagenet` the application with its top. `pcamjax.load` reads the same values back.

    Raises:
      InputError: the name does not end in .h5, without .weights before it (Keras would expect another layout); the
        variables are not those of the network; or the file cannot be written.
    """
    if not str(path).endswith((".h5", ".hdf5")) or str(path).endswith(".weights.h5"):
        raise InputError(f"{path}: Keras tells layouts by name; call it .h5, without .weights before that")
    layers = keras_layers(model_name, imagenet=imagenet)
    values = {key: np.asarray(value) for key, value in traverse_util.flatten_dict(variables).items()}
    expected = {tensor.path: tensor for layer in layers for tensor in layer.tensors}
    for key in sorted(expected.keys() | values.keys()):
        shape = swap_axes(expected[key].role, values[key]).shape if key in expected.keys() & values.keys() else None
        if shape is None or shape != expected[key].shape:
            raise InputError(f"{path}: {'/'.join(key)} is not as in the variables of {model_name}; name their network")
    with atomic_file(path) as temporary, h5py.File(temporary, "w") as file:
        # The values are laid out as TensorFlow's, which no version of Keras converts.
        file.attrs["backend"], file.attrs["keras_version"] = np.bytes_("tensorflow"), np.bytes_("3.0.0")
        file.attrs["layer_names"] = np.array(["input_layer", *(layer.name for layer in layers)], "S")
        file.create_group("input_layer").attrs["weight_names"] = np.array([], "S")
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{tensor.role}" for tensor in layer.tensors]
            group.attrs["weight_names"] = np.array(names, "S")
            for name, tensor in zip(names, layer.tensors, strict=True):
                group[name] = swap_axes(tensor.role, values[tensor.path])
