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
from pcamjax.files import require_file
from pcamjax.isolation import Isolated, UnreadableError

FORMATS = ("TIFF", "PNG", "JPEG", "BMP")
LARGEST_IMAGE = 4 << 20  # bytes of a file; a patch without compression has 27,648


class ImageReader:
    """Decodes images in a process of its own, for as long as a `with` statement lasts."""

    def __enter__(self) -> "ImageReader":
        self._decoder: Isolated | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, file: Path) -> UInt8[np.ndarray, "96 96 3"]:
        """The pixels of a file, whose header must say 96x96 RGB with 8 bits a colour.

        Raises:
          InputError: any other size or kind of image, a file that is no image, or one that Pillow did not live through.
        """
        try:
            require_file(file, LARGEST_IMAGE)
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file}: not readable as an image ({error}); restore it") from None
        return self.decode(content, str(file))

    def decode(self, content: bytes, where: str) -> UInt8[np.ndarray, "96 96 3"]:
        """The pixels of an image in memory, as `read`; `where` names it in messages."""
        try:
            self._decoder = self._decoder or Isolated("pcamjax.data.sources.images:Decoder")
            pixels = self._decoder.read("decode", payload=content, size=int(np.prod(IMAGE_SHAPE)))
        except InputError as error:
            raise InputError(f"{where}: {error}; convert or crop it first") from None
        except UnreadableError as error:
            self._end()
            raise InputError(f"{where}: not a whole {', '.join(FORMATS)} image ({error}); restore it") from None
        return np.frombuffer(pixels, np.uint8).reshape(IMAGE_SHAPE)

    def _end(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


class Decoder:
    """What `ImageReader` asks, in the process where Pillow itself runs."""

    def decode(self, content: bytes = b"") -> bytes:
        """The bytes of 96x96 RGB pixels.

        Raises:
          InputError: the header says another size or kind of image.
        """
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            # Pillow calls 16-bit colours RGB too, and would drop their lower byte without a word.
            mode = "16-bit RGB" if ";16" in str(image.tile) else image.mode
            if mode != "RGB" or image.size != IMAGE_SHAPE[1::-1]:
                raise InputError(f"a {mode} image of {image.width}x{image.height}, expected 8-bit RGB of 96x96")
            return image.tobytes()


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
        with ImageReader() as reader:
            for start in range(0, len(self.files), BATCH):
                files, labels, *names = map(list, zip(*self.files[start:start + BATCH], strict=True))
                images = np.stack([reader.read(file) for file in files])
                yield PatchBatch(images, np.array(labels, np.int8), *names)
