"""Photos to time the input with: JPEG files of one size in memory, cut from the two photos that scikit-learn brings."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sequencer2d.data.images import UPRIGHT, Decoding, decode
from sequencer2d.data.sources import Source
from sequencer2d.errors import DataError

COUNT = 32
QUALITY = 95
"""Quality of the JPEG files. At 500×375 pixels they take about 80 kB; ImageNet's take 110 kB on average."""


class PhotoSource:
    """JPEG files of (width, height) `size` in two classes, held in memory, so that no disk takes part in a timing.

    Args:
        size: (width, height) in pixels.
        count: files, each another part of a photo.
        decoding: how they become pixels.

    Raises:
        DataError: scikit-learn is not installed.
    """

    def __init__(self, size: tuple[int, int], count: int = COUNT, decoding: Decoding = UPRIGHT) -> None:
        self.size, self.decoding = size, decoding
        self.class_names: tuple[str, ...] = ("china", "flower")
        photos = _photos(self.class_names)
        generator = np.random.default_rng(0)
        self._files = [_file(photos[index % 2], size, generator) for index in range(count)]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return decode(self._files[index], self.decoding), index % 2

    def describe(self, index: int) -> str:
        """The number of the photo."""
        return f"photos[{index}]"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Numbers of the files, of which there are few, and classes."""
        return self._files, np.arange(len(self)) % 2

    def size_of(self, index: int) -> int:
        """The bytes of the file."""
        return len(self._files[index])


class RepeatedSource:
    """A source of `length` images that begins again when the images of `source` end."""

    def __init__(self, source: Source, length: int) -> None:
        self.class_names, self._source, self._length = source.class_names, source, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return self._source[index % len(self._source)]

    def describe(self, index: int) -> str:
        """As the source's."""
        return self._source.describe(index % len(self._source))

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Those of the source, repeated."""
        names, targets = self._source.identities()
        chosen = np.arange(self._length) % len(self._source)
        return [names[index] for index in chosen.tolist()] if len(names) else [], targets[chosen]

    def size_of(self, index: int) -> object:
        """As the source's."""
        return self._source.size_of(index % len(self._source))


def _photos(names: Sequence[str]) -> list[Image.Image]:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise DataError(
            "timing the input needs photos: pip install scikit-learn, which brings two, or name yours with data.root"
        ) from error
    folder = Path(sklearn.datasets.__file__).parent / "images"
    return [decode(folder / f"{name}.jpg") for name in names]


def _file(photo: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> bytes:
    """A part of the photo, in the proportions of `size`, as a JPEG file."""
    share = generator.uniform(0.85, 1) * min(photo.width / size[0], photo.height / size[1])
    width, height = share * size[0], share * size[1]
    left, top = generator.uniform(0, photo.width - width), generator.uniform(0, photo.height - height)
    buffer = io.BytesIO()
    part = photo.resize(size, Image.Resampling.LANCZOS, (left, top, left + width, top + height))
    part.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
