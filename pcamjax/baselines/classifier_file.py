"""A fitted classifier in a file without pickle (skops)."""

import os
import zipfile

from sklearn.pipeline import Pipeline

from pcamjax.errors import InputError, first_line
from pcamjax.files import atomic_file, open_zip
from pcamjax.isolation import Isolated

LARGEST = 4 * 2**30  # bytes of one classifier, unpacked


def save_classifier(classifier: Pipeline, path: str | os.PathLike) -> None:
    """Writes a classifier, atomically. The bytes differ from time to time, for skops names arrays by their addresses.

    Raises:
      InputError: the file cannot be written.
    """
    import skops.io  # a second or two: it imports all of scikit-learn

    with atomic_file(path) as temporary:
        skops.io.dump(classifier, temporary, compression=zipfile.ZIP_DEFLATED, compresslevel=1)


def load_classifier(path: str | os.PathLike) -> Pipeline:
    """Reads what `save_classifier` wrote, first in a process of its own: scikit-learn crashes as it makes trees of some
    numbers.

    Raises:
      InputError: the file is missing, damaged, larger than 4 GiB, of another kind, or of another version of
        scikit-learn.
    """
    if not os.path.exists(path):
        raise InputError(f"{path}: no such file")
    try:
        with open_zip(path, LARGEST) as archive:
            size = sum(member.file_size for member in archive.infolist())
        Isolated("pcamjax.baselines.classifier_reader:read_classifier", os.path.abspath(path), size=size).close()
        from pcamjax.baselines.classifier_reader import read_classifier
        return read_classifier(path)
    except InputError as error:
        raise InputError(f"{path}: {error}; fit it anew in another workdir") from None
    # skops passes on whatever the libraries say to a file that is not as it should be.
    except Exception as error:
        raise InputError(f"{path}: not usable as a classifier ({first_line(error)}); fit it anew in another "
                         "workdir") from None
