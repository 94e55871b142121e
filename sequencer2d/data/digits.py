"""scikit-learn's handwritten digits: real images that need no download."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from sequencer2d.errors import DataError


class DigitsSource:
    """scikit-learn's handwritten digits: 1,797 grayscale images of 8×8 pixels in 10 classes, no download.

    Every fifth image of each class is a test image, so that both splits hold the same mix of classes.

    Raises:
        DataError: another split than train, val or test, or scikit-learn is not installed.
    """

    def __init__(self, split: str = "train") -> None:
        if split not in ("train", "val", "validation", "valid", "test"):
            raise DataError(f"digits has the splits train and val (also called test), not {split!r}")
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise DataError("digits needs scikit-learn: pip install scikit-learn") from error
        data = load_digits()
        of_class = np.zeros(len(data.target), dtype=np.int64)
        for digit in range(10):
            of_class[data.target == digit] = np.arange(np.sum(data.target == digit))
        chosen = (of_class % 5 != 4) if split == "train" else (of_class % 5 == 4)
        self.class_names = tuple(str(digit) for digit in range(10))
        self.split = split
        self._images = np.rint(data.images[chosen] * (255 / 16)).astype(np.uint8)
        self._targets = data.target[chosen]

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self._images[index]).convert("RGB"), int(self._targets[index])

    def describe(self, index: int) -> str:
        """Which digit of which split."""
        return f"digits/{self.split}[{index}]"

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """The pixels, which are few, and targets."""
        return [image.tobytes() for image in self._images], self._targets

    def size_of(self, index: int) -> tuple[int, ...]:
        """Height and width."""
        return tuple(self._images[index].shape)
