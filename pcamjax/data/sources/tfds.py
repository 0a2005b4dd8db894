"""TensorFlow Datasets' `patch_camelyon`, prepared; TensorFlow is needed only for its TFRecord format."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pcamjax.data.sources.images import ImageReader
from pcamjax.data.store import BATCH, PatchBatch, Source
from pcamjax.errors import InputError, first_line

NAME = "patch_camelyon"
PARTS = {"train": "train", "validation": "valid", "test": "test"}
PREPARE = f"prepare it: tfds build {NAME} --file_format=array_record --data_dir=<folder>"


@dataclass(frozen=True)
class _Tfds:
    builder: tfds.core.DatasetBuilder
    path: Path
    name: str = "tfds"

    def __len__(self) -> int:
        return sum(split.num_examples for split in self.builder.info.splits.values())

    def batches(self) -> Iterator[PatchBatch]:
        with ImageReader() as reader:
            for split, part in PARTS.items():
                if split not in self.builder.info.splits:
                    continue
                examples = iter(self._examples(split))
                while True:
                    with _readable(self.path):
                        batch = list(islice(examples, BATCH))
                    if not batch:
                        break
                    ids = [example["id"].decode() for example in batch]
                    images = np.stack([reader.decode(example["image"], f"{self.path}, patch {name}")
                                       for example, name in zip(batch, ids, strict=True)])
                    labels = np.array([example["label"] for example in batch], np.int8)
                    yield PatchBatch(images, labels, ids, [""] * len(ids), [part] * len(ids))

    def _examples(self, split: str) -> Any:
        # Undecoded: the PNG bytes go through the same checks as every other image.
        decoders = {"image": tfds.decode.SkipDecoding()}
        with _readable(self.path):
            if self.builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
                return self.builder.as_data_source(split, decoders=decoders)
            return tfds.as_numpy(self.builder.as_dataset(split, decoders=decoders, shuffle_files=False))


def open_tfds(folder: str | os.PathLike) -> Source:
    """Opens a prepared patch_camelyon; `folder` is its own (with dataset_info.json) or the data_dir above it.

    Ids are those of TFDS ("train_0"), slides not known; the order is the one to which TFDS shuffled the data
    when it prepared them. The array_record format is read without TensorFlow.

    Raises:
      InputError: no prepared data set there, or another one, or TFRecord files and no TensorFlow.
    """
    folder = Path(folder)
    versions = [folder] if (folder / "dataset_info.json").is_file() else sorted(
        file.parent for file in folder.glob(f"{NAME}/*/dataset_info.json"))
    if not versions:
        raise InputError(f"{folder}: no prepared {NAME} here; {PREPARE}")
    with _readable(path := versions[-1]):
        builder = tfds.builder_from_directory(path)
        features, splits = set(builder.info.features), list(builder.info.splits)
    if not {"id", "image", "label"} <= features or not splits or not set(splits) <= PARTS.keys():
        raise InputError(f"{path}: features {sorted(features)} in splits {splits}, expected id, image and "
                         f"label in {', '.join(PARTS)}, as in {NAME}")
    tfrecord = builder.info.file_format is tfds.core.FileFormat.TFRECORD
    if tfrecord and importlib.util.find_spec("tensorflow") is None:
        raise InputError(f"{path}: TFRecord files, which need TensorFlow: pip install 'pcamjax[tfds]', or "
                         f"{PREPARE}")
    return _Tfds(builder, path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns whatever TFDS and its readers raise for damaged files into an InputError."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{path}: TFDS cannot read it ({first_line(error)}); {PREPARE}") from error
