"""Decoding: a file or bytes → an 8-bit RGB image.

The orientation that cameras note in EXIF is not applied: the paper's runs, timm and torchvision train and evaluate on
pixels as they are stored, and published accuracies mean that.
"""

import io
import os
from typing import IO

import numpy as np
from PIL import Image

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


class BrokenImageError(Exception):
    """An image that cannot be read or decoded. Loaders skip it, count it and say which one it was."""


def decode(file: str | os.PathLike[str] | bytes | IO[bytes]) -> Image.Image:
    """The image in a path, a buffer or an open file as RGB, 8 bits a channel, fully loaded.

    Greyscale, palette and CMYK images are converted, transparency is dropped, 16-bit greyscale keeps its upper 8 bits.

    Raises:
        BrokenImageError: whatever is wrong with the file; the message says what.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            return to_rgb(image)
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, IndexError, …
        raise BrokenImageError(f"{type(error).__name__}: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as 8-bit RGB. Raises `ValueError` for floating-point pixels, whose range nobody states."""
    if image.mode == "RGB":
        image.load()
        return image
    if image.mode.startswith("I"):  # 16 bits of greyscale; plain conversion would clip all but the darkest 256 levels
        pixels = np.asarray(image).astype(np.int64)
        return Image.fromarray((pixels.clip(0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range; convert the image to 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
