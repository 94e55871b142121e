"""Images in the forms that callers have: paths, Pillow's images, NumPy arrays, tensors."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from sequencer2d.data.images import UPRIGHT, BrokenImageError, Decoding, decode, to_rgb
from sequencer2d.errors import InputError

GivenImage: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor
"""A file; or an image of Pillow's; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or a tensor (H, W),
(1, H, W), (3, H, W) or (4, H, W). Arrays and tensors hold uint8 values 0 to 255, or floating-point values 0 to 1."""


def is_single(images: Any) -> bool:
    """Whether this is one image, not several: arrays and tensors of four dimensions are batches."""
    return isinstance(images, str | os.PathLike | Image.Image) or (
        isinstance(images, np.ndarray | torch.Tensor) and images.ndim <= 3
    )


def each_image(images: GivenImage | Iterable[GivenImage]) -> Iterator[tuple[str, GivenImage]]:
    """(path, image) of each; images that are no files are called `image 0`, `image 1`, …."""
    several: Iterable[Any] = [images] if is_single(images) else images  # type: ignore[assignment]
    for index, image in enumerate(several):
        is_file = isinstance(image, str | os.PathLike)
        yield os.fspath(image) if is_file else f"image {index}", image


def open_given(image: GivenImage, decoding: Decoding = UPRIGHT) -> Image.Image:
    """An image as upright 8-bit RGB.

    Raises:
        BrokenImageError: a file or an image of Pillow's that cannot be decoded.
        InputError: something else than an image, or an array of another shape, dtype or range.
    """
    if isinstance(image, str | os.PathLike):
        return decode(image, decoding)
    if isinstance(image, np.ndarray | torch.Tensor):
        image = Image.fromarray(_to_bytes(image))
    if not isinstance(image, Image.Image):
        raise InputError(
            f"expected an image as a path, an image of Pillow's, an array or a tensor, got {type(image).__name__}"
        )
    notes = dict(image.info)
    try:
        return to_rgb(image, decoding)
    except Exception as error:  # as in `decode`
        raise BrokenImageError(f"{type(error).__name__}: {error}") from error
    finally:
        image.info = notes  # decoding adds to them


def _to_bytes(image: np.ndarray | torch.Tensor) -> np.ndarray:
    """uint8 (H, W), (H, W, 3) or (H, W, 4)."""
    given = f"{type(image).__name__} {tuple(image.shape)} of {image.dtype}"
    if isinstance(image, torch.Tensor):
        pixels = image.detach().cpu()
        pixels = pixels.float() if pixels.is_floating_point() else pixels
        array = (pixels.permute(1, 2, 0) if pixels.ndim == 3 else pixels).numpy()
        layout = "(H, W) or (1, 3 or 4, H, W)"
    else:
        array, layout = image, "(H, W) or (H, W, 1, 3 or 4)"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InputError(f"expected an image of shape {layout}, got {given}")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError(
                f"expected floating-point values from 0 to 1, got {given} with values from {array.min():g} to "
                f"{array.max():g}; give uint8 values for 0 to 255, and no normalized images"
            )
        array = np.rint(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"expected uint8 values or floating-point values from 0 to 1, got {given}")
    return np.ascontiguousarray(array)
