"""Each operation on a batch gives the pixels that Pillow gives for its images one by one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from timm.data import auto_augment
from torch import Tensor

from sequencer2d.data import pixel_ops
from sequencer2d.data.plans import pillow_may_resize_rows_first

HEIGHT, WIDTH = 37, 45
FACTORS = [0.1, 0.5, 0.99, 1.0, 1.3, 1.81, 1.9]
FILL = (124, 116, 104)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """Smooth ones, noise, dark ones of few values and one of a single color."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (4, 9, 11, 3), dtype=np.uint8)
    smooth = [Image.fromarray(part).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for part in coarse]
    noise = Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    dark = Image.fromarray(random.integers(30, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    return [*smooth, noise, dark, Image.new("RGB", (WIDTH, HEIGHT), (3, 200, 7))]


def stack(images: list[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2).contiguous()


def assert_same(batch: Tensor, images: list[Image.Image]) -> None:
    assert batch.dtype == torch.uint8
    torch.testing.assert_close(batch, stack(images), rtol=0, atol=0)


def enhance(name: str) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, factor: getattr(ImageEnhance, name)(image).enhance(factor)


@pytest.mark.parametrize(
    ("name", "reference", "values"),
    [
        ("invert", lambda image, _: ImageOps.invert(image), None),
        ("autocontrast", lambda image, _: ImageOps.autocontrast(image), None),
        ("equalize", lambda image, _: ImageOps.equalize(image), None),
        ("posterize", ImageOps.posterize, [1, 2, 3, 4, 5, 7, 8]),
        ("solarize", ImageOps.solarize, [0, 1, 30, 128, 200, 255, 256]),
        ("solarize_add", auto_augment.solarize_add, [0, 1, 30, 110, 100, 128, 25]),
        ("brightness", enhance("Brightness"), FACTORS),
        ("contrast", enhance("Contrast"), FACTORS),
        ("color", enhance("Color"), FACTORS),
        ("sharpness", enhance("Sharpness"), FACTORS),
    ],
)
def test_values_change_as_in_pillow(name, reference, values, images):
    arguments = [] if values is None else [torch.tensor(values)]
    wanted = [reference(image, value) for image, value in zip(images, values or [0] * len(images), strict=True)]
    assert_same(getattr(pixel_ops, name)(stack(images), *arguments), wanted)


def test_posterizing_to_no_bits_gives_black(images):
    assert not pixel_ops.posterize(stack(images), torch.zeros(len(images), dtype=torch.int64)).any()


@pytest.mark.parametrize("resample", [pixel_ops.BILINEAR, pixel_ops.BICUBIC])
def test_affine_maps_move_pixels_as_in_pillow(resample, images):
    matrices = [
        (1, 0.3, 0, 0, 1, 0),
        (1, 0, 0, -0.27, 1, 0),
        (1, 0, 7.3, 0, 1, 0),
        (1, 0, 0, 0, 1, -5),
        (0.9, 0.2, 3, -0.2, 0.9, 1),
        (1, 0, 0, 0, 1, 0),
        (1, 0, 100, 0, 1, 0.5),
    ]
    fill = torch.tensor(FILL, dtype=torch.uint8)
    moved = pixel_ops.affine(stack(images), torch.tensor(matrices, dtype=torch.float64), fill, resample)
    wanted = [
        image.transform(image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=FILL)
        for image, matrix in zip(images, matrices, strict=True)
    ]
    assert_same(moved, wanted)


@pytest.mark.parametrize("resample", [pixel_ops.BILINEAR, pixel_ops.BICUBIC])
@pytest.mark.parametrize("size", [(64, 64), (16, 12), (112, 45), (1, 1)])
def test_parts_are_resized_as_in_pillow(size, resample, images):
    boxes = [
        (0, 0, 45, 37),
        (3, 1, 20, 5),
        (5, 2, 33, 30),
        (0, 3, 11, 20),
        (10, 4, 30, 17),
        (20, 5, 25, 32),
        (7, 6, 1, 1),
    ]
    left, top, width, height = torch.tensor(boxes).T
    filters = torch.full((len(images),), resample)
    rows = pixel_ops.resample_matrices(top, height, HEIGHT, size[0], filters)
    columns = pixel_ops.resample_matrices(left, width, WIDTH, size[1], filters)
    wanted = [
        image.crop((x, y, x + w, y + h)).resize((size[1], size[0]), resample)
        for image, (x, y, w, h) in zip(images, boxes, strict=True)
    ]
    pixels = stack(images)
    batch = pixel_ops.resize(pixels, rows, columns)
    if pillow_may_resize_rows_first():
        late = torch.tensor([h > size[0] and h - size[0] > 2 * (w - size[1]) for _, _, w, h in boxes])
        batch[late] = pixel_ops.resize(pixels[late], rows[late], columns[late], rows_first=True)
    assert_same(batch, wanted)


def test_mirrored_matrices_mirror(images):
    start, length = torch.zeros(2, dtype=torch.int64), torch.full((2,), WIDTH)
    filters = torch.full((2,), pixel_ops.BICUBIC)
    plain = pixel_ops.resample_matrices(start, length, WIDTH, 20, filters)
    mixed = pixel_ops.resample_matrices(start, length, WIDTH, 20, filters, flip=torch.tensor([False, True]))
    assert torch.equal(mixed[0], plain[0])
    assert torch.equal(mixed[1], plain[1].flip(0))
