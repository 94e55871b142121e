import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from sequencer2d.data import images
from sequencer2d.data.images import (
    EXTENSIONS,
    PUBLISHED,
    BrokenImageError,
    Decoding,
    background_color,
    decode,
    readable_extensions,
    remedy,
    size_of,
    to_rgb,
)
from tests.data.images import break_image, picture, png, tiff


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


def test_sixteen_bit_grayscale_keeps_its_upper_bits() -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    content = encoded(Image.fromarray(levels * 257), "PNG")
    assert np.array_equal(np.asarray(decode(content))[..., 1], levels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_and_strange_files_are_broken(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(picture(4, (64, 64)), kind))
    break_image(path)
    for file in (path, b"no image", b"", tmp_path / "missing.png"):
        with pytest.raises(BrokenImageError):
            decode(file)


def test_a_file_that_is_no_image_says_what_it_is(tmp_path: Path) -> None:
    wide = io.BytesIO()
    Image.new("1", (60_000, 3_000)).save(wide, "PNG")
    whole = encoded(picture(4, (64, 64)), "JPEG")
    for content, said in (
        (b"", "the file is empty"),
        (b" \n<!DOCTYPE html><p>404", "the file holds a web page or other markup, not pixels"),
        (wide.getvalue(), "180 megapixels, and at most 179 are read: save a smaller copy"),
        (whole[: len(whole) - 40], "image file is truncated"),
    ):
        with pytest.raises(BrokenImageError) as caught:
            decode(content)
        assert str(caught.value).startswith(said)
    for look in (decode, size_of):
        with pytest.raises(BrokenImageError, match=r"^No such file or directory$"):
            look(tmp_path / "missing.png")


GRAY = np.asarray(picture(5, (16, 12)).convert("L"))


@pytest.mark.parametrize(
    "pixels, options",
    [
        (GRAY, {}),
        (GRAY.astype(np.uint16) * 257, {}),
        (GRAY.astype(">u2") * np.uint16(257), {}),
        (255 - GRAY, {"photometric": 0}),
        (65535 - GRAY.astype(np.uint16) * 257, {"photometric": 0}),
    ],
    ids=["8", "16", "16 big-endian", "8 inverted", "16 inverted"],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_unsigned_grayscale_of_tiff_is_one_picture(
    pixels: np.ndarray, options: dict[str, int], compressed: bool
) -> None:
    decoded = decode(tiff(pixels, compressed=compressed, **options))
    assert np.array_equal(np.asarray(decoded), np.repeat(GRAY[..., None], 3, axis=-1))


def test_twelve_bits_fill_the_range() -> None:
    levels = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
    pairs = levels.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], -1)
    decoded = np.asarray(decode(tiff(levels, bits=12, content=packed.astype(np.uint8).tobytes())))
    assert np.array_equal(decoded[..., 0], levels >> 4)


@pytest.mark.parametrize(
    "dtype",
    [np.int8, np.int16, np.uint32, np.int32, np.float32, ">i2", ">i4", ">f4"],
    ids=lambda kind: np.dtype(kind).str,
)
@pytest.mark.parametrize("photometric", [0, 1])
def test_grayscale_without_a_range_is_refused(dtype: type, photometric: int) -> None:
    content = tiff(GRAY.astype(dtype), photometric=photometric)
    with pytest.raises(BrokenImageError, match=r"state no range|no readable image"):
        decode(content)


def test_cases_of_deep_gray_in_memory_are_refused_too() -> None:
    for mode in ("I", "F"):
        with pytest.raises(ValueError, match="state no range"):
            to_rgb(Image.new(mode, (4, 4)))


def test_planes_of_sixteen_bits_are_right_or_refused() -> None:
    rgb = np.asarray(picture(6, (16, 12)))
    deep = rgb.astype(np.uint16) * 257
    assert np.array_equal(np.asarray(decode(tiff(deep))), rgb)
    planes = np.ascontiguousarray(deep.transpose(2, 0, 1))
    with pytest.raises(BrokenImageError, match="planes of 16 bits"):
        decode(tiff(planes, planar=True))


def test_lab_shows_its_colors() -> None:
    lab = np.zeros((4, 4, 3), np.uint8)
    lab[:] = (135, 80, 67)  # L* 53, a* 80, b* 67: the red of sRGB
    red = np.asarray(decode(tiff(lab, photometric=8))).astype(int)
    assert np.abs(red - (255, 0, 0)).max() <= 12


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photos_are_upright_as_pillow_puts_them(value: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    content = encoded(picture(3, (16, 8)), kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image.convert("RGB"))
        stored = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(decode(content)), np.asarray(upright))
    assert decode(content).size == ((16, 8) if value < 5 else (8, 16))
    assert np.array_equal(np.asarray(decode(content, PUBLISHED)), stored)


def test_orientations_that_mean_nothing_change_nothing() -> None:
    for value in (0, 9, 255):
        exif = Image.Exif()
        exif[0x0112] = value
        assert decode(encoded(picture(3, (16, 8)), "PNG", exif=exif)).size == (16, 8)
    assert decode(encoded(picture(3, (16, 8)), "PNG", exif=b"Exif\0\0II*\0\xff\xff")).size == (16, 8)


def transparent(mode: str) -> bytes:
    """A black drawing, the left half of 8 × 4 pixels, beside transparent black ones."""
    drawing = Image.new("RGBA", (8, 4), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (0, 0, 4, 4))
    if mode == "P":
        palette = Image.new("P", (8, 4), 1)
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.paste(0, (0, 0, 4, 4))
        return encoded(palette, "PNG", transparency=b"\xff\0")
    if mode == "GIF":
        return encoded(drawing, "GIF")
    return encoded(drawing.convert(mode), "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "GIF"])
def test_transparency_shows_the_background(mode: str) -> None:
    content = transparent(mode)
    for background, color in (("white", 255), ("#808080", 128), ("black", 0)):
        pixels = np.asarray(decode(content, Decoding(background=background_color(background))))
        assert (pixels[:, :4] == 0).all()
        assert (pixels[:, 4:] == color).all()
    assert (np.asarray(decode(content))[:, 4:] == 255).all()
    assert (np.asarray(decode(content, PUBLISHED)) == 0).all()


def test_half_transparent_pixels_are_mixed() -> None:
    content = encoded(Image.new("RGBA", (2, 2), (100, 0, 200, 51)), "PNG")
    expected = [round(0.2 * level + 0.8 * 255) for level in (100, 0, 200)]
    assert np.asarray(decode(content))[0, 0].tolist() == expected


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_level_of_png_is_found_at_every_depth(bits: int) -> None:
    levels = np.arange(min(2**bits, 16)) * (4369 if bits == 16 else 1)
    content = png(levels, bits, transparent=(int(levels[1]),))
    shown = np.asarray(decode(content, Decoding(background=(255, 0, 0))))[0]
    assert [index for index, pixel in enumerate(shown.tolist()) if pixel == [255, 0, 0]] == [1]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_color_of_png_is_found_at_every_depth(bits: int) -> None:
    levels = np.repeat(np.arange(8) * (30 if bits == 8 else 7000), 3).reshape(8, 3)
    content = png(levels, bits, transparent=tuple(levels[1].tolist()))
    shown = np.asarray(decode(content, Decoding(background=(255, 0, 0))))[0]
    assert [index for index, pixel in enumerate(shown.tolist()) if pixel == [255, 0, 0]] == [1]


def test_every_suffix_is_of_a_format_that_can_be_opened() -> None:
    assert {".jfif", ".mpo", ".jpe", ".pbm"} <= readable_extensions()
    missing = EXTENSIONS - readable_extensions()
    assert all(remedy(suffix) for suffix in missing)
    first, second = picture(1, (16, 16)), picture(2, (16, 16))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(np.asarray(decode(buffer.getvalue())).astype(int) - np.asarray(first)).mean() < 5


def test_a_suffix_without_its_decoder_has_a_remedy_and_others_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_decoders", lambda: ("JPEG", "PNG"))
    assert images.remedy(".heic") == images.REMEDIES["HEIF"]
    assert (images.remedy(".jpg"), images.remedy(".txt")) == (None, None)
    monkeypatch.setattr(images, "_decoders", lambda: ("HEIF",))
    assert images.remedy(".heic") is None


def test_other_decoders_of_pillow_stay_closed() -> None:
    for content in (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", encoded(picture(1), "TGA")):
        with pytest.raises(BrokenImageError, match="no readable image in one of the formats JPEG"):
            decode(content)


@pytest.mark.skipif(".heic" in readable_extensions(), reason="pillow-heif is installed")
def test_a_photo_in_heic_names_the_package() -> None:
    with pytest.raises(BrokenImageError, match="pip install pillow-heif"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0")


@pytest.mark.skipif(".heic" not in readable_extensions(), reason="pillow-heif is not installed")
def test_photos_in_heic_are_read() -> None:
    content = encoded(picture(1, (64, 64)), "HEIF", quality=95)
    assert np.abs(np.asarray(decode(content)).astype(int) - np.asarray(picture(1, (64, 64)))).mean() < 5
