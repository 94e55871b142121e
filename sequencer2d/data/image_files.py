"""Labeled images in the files of one folder: what sources of files share."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sequencer2d.data.images import Decoding, decode


class ImageFiles:
    """A `Source` of image files.

    Args:
        folder: above all files.
        files: (N,) their paths, relative to `folder`.
        targets: (N,) class indices.
        class_names: name of each class.
        decoding: how image files become pixels.
    """

    def __init__(
        self, folder: Path, files: Sequence[str], targets: np.ndarray, class_names: Sequence[str], decoding: Decoding
    ) -> None:
        self.folder, self.class_names, self.decoding = folder, tuple(class_names), decoding
        # One array of bytes, not a million strings: forked workers would copy those page by page as they touch them.
        self._files = np.array([os.fsencode(file) for file in files])
        self._targets = targets.astype(np.int64)

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return decode(self.describe(index), self.decoding), int(self._targets[index])

    def paths(self) -> list[str]:
        """Every image's path below the folder, in order."""
        return [os.fsdecode(path) for path in self._files]

    def describe(self, index: int) -> str:
        """The image's path."""
        return os.path.join(self.folder, os.fsdecode(self._files[index]))  # noqa: PTH118 - called for every image

    def identities(self) -> tuple[Sequence[bytes], np.ndarray]:
        """Paths below the folder, and targets."""
        return self._files.tolist(), self._targets

    def size_of(self, index: int) -> int:
        """Bytes of the image's file; -1 if there is none."""
        try:
            return os.stat(self.describe(index)).st_size  # noqa: PTH116
        except OSError:
            return -1
