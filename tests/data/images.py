"""Small folders of real image files for the tests of the data layer."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A smooth colored picture of (width, height), different for every seed."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def make_folder(root: Path, splits: dict[str, dict[str, int]]) -> Path:
    """root/<split>/<class>/<number>.png with as many images as `splits` says."""
    for split, classes in splits.items():
        for number, (name, count) in enumerate(classes.items()):
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in range(count):
                picture(1000 * number + image).save(folder / f"{image:03d}.png")
    return root


def break_image(path: Path) -> None:
    """Cut an image file in half."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def tiff(
    pixels: np.ndarray,
    *,
    photometric: int | None = None,
    bits: int | None = None,
    planar: bool = False,
    compressed: bool = False,
    content: bytes | None = None,
) -> bytes:
    """A TIFF of one strip, in the byte order and sample format of `pixels`: (H, W), (H, W, C) or planes (C, H, W).

    Args:
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 8 CIELAB; by default what the shape suggests.
        bits: of a sample, where `content` holds packed samples.
        compressed: by Deflate.
        content: the strip's bytes in place of the pixels'.
    """
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    height, width = pixels.shape[1:] if planar else pixels.shape[:2]
    samples = 1 if pixels.ndim == 2 else pixels.shape[0 if planar else 2]
    strip = content or pixels.tobytes()
    strip = zlib.compress(strip) if compressed else strip
    planes = samples if planar else 1
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits or pixels.dtype.itemsize * 8] * samples),
        259: (3, [8 if compressed else 1]),
        262: (3, [photometric if photometric is not None else 2 if samples == 3 else 1]),
        273: (4, [0] * planes),
        277: (3, [samples]),
        278: (4, [height]),
        279: (4, [len(strip) // planes] * planes),
        284: (3, [2 if planar else 1]),
        339: (3, [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * samples),
    }
    start = 8 + 2 + 12 * len(tags) + 4
    places, extra = {}, b""
    for tag, (kind, values) in tags.items():
        if len(values) * (2 if kind == 3 else 4) > 4:
            places[tag] = start + len(extra)
            extra += struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
    first = start + len(extra)
    offsets = [first + plane * (len(strip) // planes) for plane in range(planes)]
    tags[273] = (4, offsets)
    if 273 in places:
        at = places[273] - start
        extra = extra[:at] + struct.pack(f"{order}{planes}I", *offsets) + extra[at + 4 * planes :]
    entries = b""
    for tag, (kind, values) in tags.items():
        inline = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values).ljust(4, b"\0")
        value = struct.pack(f"{order}I", places[tag]) if tag in places else inline
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + value
    header = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return header + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra + strip


def png(levels: np.ndarray, bits: int, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of two equal rows: grayscale (W,) or RGB (W, 3) of any depth, with a transparent level or color."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    if bits < 8:
        row = np.packbits(np.unpackbits(levels.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].reshape(-1)).tobytes()
    else:
        row = levels.astype(">u2" if bits == 16 else np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", len(levels), 2, bits, 2 if levels.ndim == 2 else 0, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    body = chunk(b"IDAT", zlib.compress((b"\0" + row) * 2))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + body + chunk(b"IEND", b"")
