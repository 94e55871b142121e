"""The operations of timm's policies that run on whole batches, by timm's names."""

import math
from collections.abc import Callable

from torch import Tensor

from sequencer2d.data import pixel_ops

AFFINE = "affine"
"""The kind of all operations that move pixels; they differ only in their matrix."""


def _translation(axis: int) -> Callable[[float, int, int], tuple[float, ...]]:
    def matrix(share: float, height: int, width: int) -> tuple[float, ...]:
        pixels = share * (width, height)[axis]
        return (1, 0, pixels, 0, 1, 0) if axis == 0 else (1, 0, 0, 0, 1, pixels)

    return matrix


def _rotation(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """The matrix of `Image.rotate`, about the image's center."""
    angle = -math.radians(degrees % 360)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cosine, sine, -cosine * x - sine * y + x, -sine, cosine, sine * x - cosine * y + y)


MATRICES: dict[str, Callable[[float, int, int], tuple[float, ...]]] = {
    "Rotate": _rotation,
    "ShearX": lambda factor, height, width: (1, factor, 0, 0, 1, 0),
    "ShearY": lambda factor, height, width: (1, 0, 0, factor, 1, 0),
    "TranslateXRel": _translation(0),
    "TranslateYRel": _translation(1),
}
"""Operations that move pixels: (value, height, width) → Pillow's affine matrix."""

OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "AutoContrast": lambda images, _: pixel_ops.autocontrast(images),
    "Equalize": lambda images, _: pixel_ops.equalize(images),
    "Invert": lambda images, _: pixel_ops.invert(images),
    "Posterize": lambda images, bits: pixel_ops.posterize(images, bits.int()),
    "Solarize": pixel_ops.solarize,
    "SolarizeAdd": lambda images, added: pixel_ops.solarize_add(images, added.int()),
    "Color": pixel_ops.color,
    "Contrast": pixel_ops.contrast,
    "Brightness": pixel_ops.brightness,
    "Sharpness": pixel_ops.sharpness,
}
"""Operations that change values: (images, one argument for each) → images. timm's …Increasing are among them."""


def kind_of(name: str) -> str:
    """The kind of timm's operation `name`: `AFFINE`, or a key of `OPERATIONS` if there is such an operation."""
    return AFFINE if name in MATRICES else name.removesuffix("Increasing").removesuffix("Original")
