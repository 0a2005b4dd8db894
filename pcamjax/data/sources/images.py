"""One image file to one patch, and lists of such files to a source."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pcamjax.data.store import BATCH, IMAGE_SHAPE, PatchBatch
from pcamjax.errors import InputError

FORMATS = ("TIFF", "PNG", "JPEG", "BMP")


def read_image(file: Path | BytesIO, where: str) -> UInt8[np.ndarray, "96 96 3"]:
    """Decodes an image, after its header has been found to say 96x96 RGB with 8 bits a colour.

    Raises:
      InputError: any other size or kind of image, or a file that is no image; `where` names it.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            # Pillow calls 16-bit colours RGB too, and would drop their lower byte without a word.
            mode = "16-bit RGB" if ";16" in str(image.tile) else image.mode
            if mode != "RGB" or image.size != IMAGE_SHAPE[1::-1]:
                raise InputError(f"{where}: a {mode} image of {image.width}x{image.height}, expected 8-bit "
                                 "RGB of 96x96; convert or crop it first")
            return np.asarray(image)
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{where}: not a whole {', '.join(FORMATS)} image ({error}); restore it") from None


class ImageFile(NamedTuple):
    """One patch in a file of its own."""

    file: Path
    label: int
    id: str
    slide: str
    part: str


@dataclass(frozen=True)
class ImageFiles:
    """A source of image files, in the order of `files`."""

    name: str
    files: list[ImageFile]

    def __len__(self) -> int:
        return len(self.files)

    def batches(self) -> Iterator[PatchBatch]:
        for start in range(0, len(self.files), BATCH):
            files, labels, *names = map(list, zip(*self.files[start:start + BATCH], strict=True))
            images = np.stack([read_image(file, str(file)) for file in files])
            yield PatchBatch(images, np.array(labels, np.int8), *names)
