"""Networks with weights: published ones, those of a file, or freshly drawn ones."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import PyTree

from pcamjax.errors import InputError
from pcamjax.models import model_spec
from pcamjax.models.network import Network
from pcamjax.models.variables import initial_variables
from pcamjax.weights.conversion import read_tensors
from pcamjax.weights.published import fetch_weights


class Loaded(NamedTuple):
    """A network's variables, and what became of the classifier of the file they are from.

    `classifier` is "read", "not in the file" (it stays as drawn) or "ImageNet's, left out" (likewise).
    """

    variables: dict[str, PyTree]
    classifier: str


def load(name: str, weights: str | os.PathLike | None = "imagenet", *, imagenet: bool = False, seed: int = 0
         ) -> tuple[Network, dict[str, Any]]:
    """A network and its variables {"params", "batch_stats"}, ready for `network.apply(variables, images)`.

    `weights` is a file of Keras' (legacy .h5, .weights.h5, .keras) or of `export_keras`, the name of a published file
    (`MODELS[name].weights`; downloaded once), or None: everything is drawn from `seed`, as is the classifier if the
    file does not hold ours. With `imagenet` the network ends in ImageNet's 1000 classes instead of the thesis' two.

    Raises:
      InputError: no such network, weights or file, no network connection, or a file that does not fit.
    """
    spec = model_spec(name)
    if imagenet and not spec.weights:
        raise InputError(f"{name} has no form for ImageNet; load it without imagenet=True")
    path = None if weights is None else find_weights(name, weights, imagenet=imagenet)
    network = spec.build(imagenet=True) if imagenet else spec.build()
    variables = initial_variables(name, seed, imagenet=imagenet)
    if path is not None:
        variables = load_weights(path, name, variables, imagenet=imagenet).variables
    return network, variables


def find_weights(model_name: str, weights: str | os.PathLike, *, imagenet: bool = False) -> Path:
    """The file that `weights` stands for: a published one by its name, downloaded if need be, or one by its path.

    With `imagenet` the published file with the classifier is taken, so that "imagenet" is the same as "imagenet_top".

    Raises:
      InputError: it is neither; or the download fails.
    """
    published = model_spec(model_name).weights
    which = str(weights).replace("imagenet", "imagenet_top", 1) if imagenet and "top" not in str(weights) else weights
    if which in published:
        return fetch_weights(model_name, str(which))
    if Path(weights).is_file():
        return Path(weights)
    problem = ("no weights are published under that name" if str(weights).startswith("imagenet") else
               "is a folder" if Path(weights).is_dir() else "no such file")
    there_is = f"{', '.join(published)}, " if published else ""
    raise InputError(f"weights {os.fspath(weights)!r} for {model_name}: {problem}; choose {there_is}the path of a "
                     "file, or none (weights=None, in a configuration an empty string) to draw them")


def load_weights(path: str | os.PathLike, model_name: str, variables: dict[str, PyTree], *, imagenet: bool = False
                 ) -> Loaded:
    """`variables` with what a file of weights holds in place of what was there.

    Raises:
      InputError: the file is not readable or does not fit.
    """
    found = read_tensors(path, model_name, imagenet=imagenet)
    flat = traverse_util.flatten_dict(variables, keep_empty_nodes=True)
    flat |= {path: jnp.asarray(values) for path, values in found.tensors.items()}
    return Loaded(traverse_util.unflatten_dict(flat), found.classifier)
