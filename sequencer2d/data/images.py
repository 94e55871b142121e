"""Decoding: a file or bytes → an upright 8-bit RGB image on a stated ground.

Pillow hands some pixels over as they lie in the file: wrapped, inverted or in a range that nobody states. Whatever this
module can't turn into what a viewer would show, it refuses.
"""

import functools
import importlib.util
import io
import os
import re
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageColor, TiffImagePlugin

from sequencer2d.choices import Orientation

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Pillow's name of each format that is read, and its suffixes. A file's content decides, not its suffix. Pillow's other
decoders stay closed to files of strangers: some of them start other programs."""
EXTENSIONS = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
REMEDIES = {"HEIF": "pip install pillow-heif", "AVIF": "pip install 'pillow>=11.3'"}
"""How to get the decoders that not every installation has."""

MOST_PIXELS = 178_956_970
"""Pixels of an image, at most: where Pillow itself refuses one as a decompression bomb."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts an image upright, by the value of its EXIF orientation."""
_TURNS_OF_90_DEGREES = (5, 6, 7, 8)

_UNSIGNED = 1
_INVERTED, _YCBCR, _SEPARATE_PLANES = 0, 6, 2
"""Values of TIFF's tags SampleFormat, PhotometricInterpretation (WhiteIsZero, YCbCr) and PlanarConfiguration."""


class BrokenImageError(Exception):
    """An image that cannot be read or decoded. Loaders skip it, count it and say which one it was."""


@dataclass(frozen=True)
class Decoding:
    """What decoding leaves to choice.

    Attributes:
        orientation: "upright" turns a photo as its EXIF orientation says, so that it looks as in any viewer; "stored"
            keeps the pixels as they lie in the file, as torchvision and timm do. (TIFF's own orientation tag is part of
            the format and always followed.)
        background: color behind transparent pixels; None drops transparency, as torchvision and timm do.
    """

    orientation: Orientation = "upright"
    background: tuple[int, int, int] | None = (255, 255, 255)


UPRIGHT = Decoding()
"""As people see photos."""
PUBLISHED = Decoding("stored", None)
"""As torchvision, timm and the authors' code read images: published accuracies mean this."""


def background_color(text: str) -> tuple[int, int, int] | None:
    """The color of "white", "#808080" or any other name that CSS knows; None for "none". Raises `ValueError`."""
    return None if text == "none" else ImageColor.getcolor(text, "RGB")  # type: ignore[return-value]


def decode(file: str | os.PathLike[str] | bytes | IO[bytes], decoding: Decoding = UPRIGHT) -> Image.Image:
    """The image in a path, a buffer or an open file as RGB, 8 bits a channel, fully loaded.

    Palette, CMYK and CIELAB images are converted. Grayscale of up to 16 bits keeps its upper 8 bits; TIFF's inverted
    grayscale is turned round. Of several frames the first one is taken.

    Raises:
        BrokenImageError: whatever is wrong with the file; the message says what.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_decoders()) as image:
            return to_rgb(image, decoding)
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, IndexError, …
        raise BrokenImageError(_why_broken(error, file)) from error


def size_of(file: str | os.PathLike[str], decoding: Decoding = UPRIGHT) -> tuple[int, int]:
    """(width, height) of what `decode` returns, from the file's header alone. Raises `BrokenImageError`."""
    try:
        with Image.open(file, formats=_decoders()) as image:
            if image.format != "TIFF":  # Pillow turns those itself, and some releases only while they load them
                turned = decoding.orientation == "upright" and _orientation(image) in _TURNS_OF_90_DEGREES
                return image.size[::-1] if turned else image.size
    except Exception as error:  # as in `decode`
        raise BrokenImageError(_why_broken(error, file)) from error
    return decode(file, decoding).size


def to_rgb(image: Image.Image, decoding: Decoding = UPRIGHT) -> Image.Image:
    """Any image as upright 8-bit RGB. Raises `ValueError` for pixels whose range or layout is not known."""
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(_too_large(image.width * image.height))
    _refuse_misread(image)
    bits, inverted = _gray_bits(image), _tiff_tag(image, "PhotometricInterpretation", None) == _INVERTED
    transparent = _transparent_key(image)
    image.load()
    turn = _TURNS.get(_orientation(image)) if decoding.orientation == "upright" else None
    if transparent is not None:
        image.info["transparency"] = transparent
    if bits is not None:
        image = _from_deep_grey(image, bits, inverted)
    if image.mode != "RGB" or "transparency" in image.info:
        image = _flattened(image, decoding.background)
    return image.transpose(turn) if turn is not None else image


@functools.cache
def readable_extensions() -> frozenset[str]:
    """The suffixes of `EXTENSIONS` that this installation has a decoder for."""
    return frozenset(suffix for name in _decoders() for suffix in FORMATS[name])


def remedy(suffix: str) -> str | None:
    """The command that brings the decoder for a suffix which this installation can't read; None if it can."""
    for name, suffixes in FORMATS.items():
        if suffix in suffixes and name not in _decoders():
            return REMEDIES.get(name)
    return None


@functools.cache
def _decoders() -> tuple[str, ...]:
    """The formats of `FORMATS` that are installed. HEIF comes from the package pillow-heif."""
    if importlib.util.find_spec("pillow_heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _refuse_misread(image: Image.Image) -> None:
    """Raise `ValueError` for TIFF's layouts that Pillow opens but reads as other colors."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    formats, bits = _tiff_tag(image, "SampleFormat", (_UNSIGNED,)), _tiff_tag(image, "BitsPerSample", (1,))
    if any(value != _UNSIGNED for value in formats):
        raise ValueError(_NO_RANGE.format("signed or floating-point"))
    uncompressed = any(tile[0] == "raw" for tile in image.tile)
    if uncompressed and max(bits) > 8 and _tiff_tag(image, "PlanarConfiguration", 1) == _SEPARATE_PLANES:
        raise ValueError(f"TIFF with uncompressed planes of {max(bits)} bits is not supported; save it as 8-bit PNG")
    if uncompressed and _tiff_tag(image, "PhotometricInterpretation", None) == _YCBCR:
        raise ValueError("TIFF with uncompressed YCbCr is not supported; save it as PNG")
    if image.mode == "P" and 0 < max(_tiff_tag(image, "ColorMap", (0,))) < 256:
        raise ValueError("TIFF's color map must hold 16-bit values, and all of these are below 256; save it as PNG")


_NO_RANGE = "{} pixels state no range, so black and white are unknown; save the image with 8 or 16 unsigned bits"


def _gray_bits(image: Image.Image) -> int | None:
    """Bits of grayscale deeper than 8; None for all other images. Raises `ValueError` where the range is unknown."""
    if image.mode.startswith("I;16"):
        return int(_tiff_tag(image, "BitsPerSample", (16,))[0])
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # Pillow scales these to 16 bits
        return 16
    if image.mode in ("I", "F"):
        raise ValueError(_NO_RANGE.format("32-bit gray" if image.mode == "I" else "floating-point"))
    return None


def _from_deep_grey(image: Image.Image, bits: int, inverted: bool) -> Image.Image:
    """The upper 8 bits of grayscale, with an alpha channel if the file names a transparent level."""
    pixels = np.asarray(image).astype(np.int32)
    gray = (pixels.clip(0, (1 << bits) - 1) >> (bits - 8)).astype(np.uint8)
    shown = Image.fromarray(255 - gray if inverted else gray)
    key = image.info.get("transparency")
    if isinstance(key, int):
        shown.putalpha(Image.fromarray(np.where(pixels == key, 0, 255).astype(np.uint8)))
    return shown


def _transparent_key(image: Image.Image) -> int | tuple[int, ...] | None:
    """PNG's transparent level or color in the units of Pillow's pixels where Pillow keeps the file's; else None."""
    key = image.info.get("transparency")
    tiles = getattr(image, "tile", ())
    if image.format != "PNG" or not tiles or key is None:
        return None
    layout = tiles[0][3]
    if layout == "RGB;16B" and isinstance(key, tuple):
        return tuple(level >> 8 for level in key)
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(str(layout))
    return min(255, key * scale) if scale and isinstance(key, int) else None


def _flattened(image: Image.Image, background: tuple[int, int, int] | None) -> Image.Image:
    """Any 8-bit image as RGB, its transparent parts on `background`."""
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode == "P" and image.palette is not None:
        alpha = alpha or image.palette.mode.endswith("A")
    if not alpha:
        return image.convert("RGB")
    if background is None and image.mode == "RGB":
        return image
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if background is None:
        return image.convert("RGB")
    ground = Image.new("RGB", image.size, background)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (as stored) where there is none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF raises anything, and does not make the pixels unreadable
        return 1
    return value if isinstance(value, int) else 1


def _tiff_tag(image: Image.Image, name: str, default: Any) -> Any:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return default
    return image.tag_v2.get(_TIFF_TAGS[name], default)


_TIFF_TAGS = {
    "BitsPerSample": 258,
    "PhotometricInterpretation": 262,
    "PlanarConfiguration": 284,
    "ColorMap": 320,
    "SampleFormat": 339,
}


def _why_broken(error: Exception, file: str | os.PathLike[str] | bytes | IO[bytes]) -> str:
    """What is wrong with a file, in words; a decoder's own where they say more than their type."""
    if isinstance(error, Image.UnidentifiedImageError):
        return _why_unidentified(file)
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(int(next(iter(re.findall(r"\d+", str(error))), MOST_PIXELS + 1)))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    plain = isinstance(error, (OSError, ValueError, SyntaxError)) and str(error)
    return str(error) if plain else f"{type(error).__name__}: {error}"


def _too_large(pixels: int) -> str:
    return f"{pixels / 1e6:,.0f} megapixels, and at most {MOST_PIXELS / 1e6:.0f} are read: save a smaller copy"


def _why_unidentified(file: str | os.PathLike[str] | bytes | IO[bytes]) -> str:
    """Why Pillow knows no format of a file: its decoder is missing, or it is no image."""
    head = _head(file)
    if not head:
        return "the file is empty"
    if head.lstrip().startswith(b"<"):
        return "the file holds a web page or other markup, not pixels; download or export the image itself"
    for name, brands in (("HEIF", (b"heic", b"heix", b"hevc", b"mif1", b"msf1")), ("AVIF", (b"avif", b"avis"))):
        if head[4:8] == b"ftyp" and head[8:12] in brands and name not in _decoders():
            return f"{name} images need another package: {REMEDIES[name]}"
    return f"no readable image in one of the formats {', '.join(_decoders())}"


def _head(file: str | os.PathLike[str] | bytes | IO[bytes]) -> bytes:
    if isinstance(file, bytes):
        return file[:12]
    try:
        if isinstance(file, (str, os.PathLike)):
            with open(file, "rb") as opened:  # noqa: PTH123 - a path of any kind
                return opened.read(12)
        file.seek(0)
        return file.read(12)
    except (OSError, ValueError):
        return b""
