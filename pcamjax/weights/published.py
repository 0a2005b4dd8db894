"""The published ImageNet weights of Keras, downloaded once into a cache folder."""

import os
from pathlib import Path

from pcamjax.download import download
from pcamjax.errors import InputError
from pcamjax.models import KERAS, model_spec
from pcamjax.weights.conversion import read_tensors

LARGEST = 1 << 30  # bytes; VGG19 with its classifier has 5.7e8


def cache_folder() -> Path:
    """Where downloaded weights are kept: $PCAMJAX_CACHE, or ~/.cache/pcamjax/weights."""
    return Path(os.environ.get("PCAMJAX_CACHE") or "~/.cache/pcamjax/weights").expanduser()


def fetch_weights(model_name: str, which: str = "imagenet", *, base_url: str = KERAS) -> Path:
    """The published file `which` of a network (a key of `MODELS[model_name].weights`), downloaded unless it is cached.

    A file gets its name in the cache only once its MD5 is the published one. MobileNet's have none: of those it is
    checked that they hold exactly the network's tensors, which does not tell one training from another.

    Raises:
      InputError: there is no such network or file, no network connection, or what came is not that file.
    """
    published = model_spec(model_name).weights
    if which not in published:
        raise InputError(f"{model_name} has no published weights {which!r}; choose {', '.join(published) or 'none'}")
    file = published[which]
    url = base_url + file.url.removeprefix(KERAS)

    def check(path: Path) -> None:
        try:
            read_tensors(path, model_name, imagenet=which.startswith("imagenet_top"))
        except InputError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise InputError(f"{url}: what came are not the weights of {model_name}, {reason}") from None

    path = cache_folder() / file.name
    download(url, path, file.md5, largest=LARGEST, by_hand="download it elsewhere and give that file's path as weights",
             check=(lambda path: None) if file.md5 else check)
    return path
