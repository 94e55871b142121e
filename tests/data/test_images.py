import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.images import BrokenImageError, decode
from tests.data.images import break_image, picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "mode, kind",
    [
        ("L", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("CMYK", "JPEG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
    ],
)
def test_every_kind_of_pixels_becomes_rgb(mode: str, kind: str) -> None:
    original = picture(1, (16, 12))
    image = decode(encoded(original.convert(mode), kind))
    assert (image.mode, image.size) == ("RGB", (16, 12))
    before = original.convert("1").convert("L") if mode == "1" else original.convert("L")
    error = np.abs(np.asarray(image.convert("L"), dtype=float) - np.asarray(before)).mean()
    assert error < 12


def test_palette_with_transparency_keeps_its_colours() -> None:
    palette = picture(2).quantize(16)
    content = encoded(palette, "PNG", transparency=bytes(range(16)))
    assert np.array_equal(np.asarray(decode(content)), np.asarray(palette.convert("RGB")))


def test_sixteen_bit_greyscale_keeps_its_upper_bits() -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    content = encoded(Image.fromarray(levels * 257), "PNG")
    assert np.array_equal(np.asarray(decode(content))[..., 1], levels)


def test_orientation_of_cameras_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(picture(3, (16, 8)), "JPEG", exif=exif)).size == (16, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_and_strange_files_are_broken(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(picture(4, (64, 64)), kind))
    break_image(path)
    for file in (path, b"no image", b"", tmp_path / "missing.png"):
        with pytest.raises(BrokenImageError):
            decode(file)


def test_floating_point_pixels_are_broken_not_guessed() -> None:
    content = encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    with pytest.raises(BrokenImageError, match="no defined range"):
        decode(content)
