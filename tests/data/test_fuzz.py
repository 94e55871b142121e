"""Generated images, shards and file trees: each is read rightly or refused as a user's error, within bounds.

The examples are the same in every run: hypothesis derives them from the tests themselves.
"""

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.finding import SYSTEM_NAMES, LeftOut, find_images, images_below
from sequencer2d.data.folders import FolderSource
from sequencer2d.data.images import EXTENSIONS, BrokenImageError, Decoding, decode, readable_extensions
from sequencer2d.data.opening import open_source
from sequencer2d.errors import DataError
from sequencer2d.terminal import printable
from tests.data.images import picture, tiff

FUZZ = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150
)

LOSSLESS = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("1", "L", "RGB"),
}
KINDS = [(kind, mode) for kind, modes in LOSSLESS.items() for mode in modes]


@st.composite
def lossless(draw: st.DrawFn) -> tuple[bytes, Image.Image, int]:
    """A file, the image in it as RGBA and its EXIF orientation."""
    kind, mode = draw(st.sampled_from(KINDS))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    pixels = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGB" if mode == "P" else mode)
    image = image.quantize(16) if mode == "P" else image
    orientation = draw(st.integers(0, 9)) if kind in ("PNG", "WEBP") else 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if kind in ("PNG", "WEBP") else {}
    if kind == "WEBP":
        options |= {"lossless": True, "exact": True}
    image.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue(), image.convert("RGBA"), orientation


@FUZZ
@given(lossless(), st.tuples(*[st.integers(0, 255)] * 3))
def test_pixels_are_upright_on_the_background(
    file: tuple[bytes, Image.Image, int], background: tuple[int, int, int]
) -> None:
    content, image, orientation = file
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image) if 1 <= orientation <= 8 else image).astype(float)
    alpha = upright[..., 3:] / 255
    expected = alpha * upright[..., :3] + (1 - alpha) * background
    shown = decode(content, Decoding(background=background))
    assert shown.mode == "RGB"
    assert np.abs(np.asarray(shown) - expected).max() <= 1


@FUZZ
@given(
    st.sampled_from(["u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", ">i4", "<f4", ">f4", "<f8"]),
    st.sampled_from([0, 1]),
    st.booleans(),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_grayscale_of_any_depth_is_right_or_refused(
    kind: str, photometric: int, compressed: bool, width: int, height: int
) -> None:
    levels = np.random.default_rng(width * 10 + height).integers(0, 256, (height, width))
    scale = {"u1": 1, "u2": 257}.get(kind[-2:])
    pixels = (levels * (scale or 1)).astype(kind)
    if photometric == 0 and scale:
        pixels = (np.iinfo(kind).max - pixels).astype(kind)
    try:
        shown = np.asarray(decode(tiff(pixels, photometric=photometric, compressed=compressed)))
    except BrokenImageError:
        assert scale is None or (kind, photometric) == (">u2", 0)  # which Pillow does not read
        return
    assert scale is not None
    assert np.array_equal(shown[..., 0], levels)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An image file of which bytes were changed, cut or put in, or bytes without any sense."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    kind = draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF", "MPO"]))
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(1, 8))
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    picture(draw(st.integers(0, 5)), (24, 16)).save(buffer := io.BytesIO(), kind, **options)
    content = bytearray(buffer.getvalue())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        change = draw(st.sampled_from(["set", "cut", "insert", "drop"]))
        if change == "set" and content:
            content[place] = draw(st.integers(0, 255))
        elif change == "cut":
            del content[place:]
        elif change == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del content[place : place + draw(st.integers(1, 8))]
    return bytes(content)


@settings(FUZZ, max_examples=2000)
@given(damaged())
@example(b"")
@example(b"P5 1 1 99999\n\0")
@example(b"P6 40000 40000 255\n")
@example(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0")
def test_damaged_images_are_read_or_broken(content: bytes) -> None:
    try:
        image = decode(content)
    except BrokenImageError as error:
        printable(error).encode()
        return
    assert image.mode == "RGB"
    assert np.asarray(image).shape == (image.height, image.width, 3)


@settings(FUZZ, max_examples=60)
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([8, (5, 9), 32]),
    st.sampled_from(["center", "squash", "border"]),
    st.floats(1e-9, 1),
)
@example(1, 20_000, 32, "center", 0.875)
@example(100_000, 1, 32, "border", 0.875)
def test_any_size_becomes_the_models(
    width: int, height: int, size: int | tuple[int, int], crop: str, share: float
) -> None:
    share = max(share, 1e-3) if crop != "center" else share
    config = DataConfig(image_size=size, eval_crop=crop, crop_pct=share)  # type: ignore[arg-type]
    assert eval_transform(config)(Image.new("RGB", (width, height))).shape == (*config.size, 3)


KEYS = st.text(st.sampled_from("ab.12_/\udce9é"), min_size=1, max_size=6)
LABELS = st.one_of(
    st.integers(-3, 12).map(lambda number: str(number).encode()),
    st.sampled_from([b"99999", b"1e3", b"\xff", b"", b'{"label": 1}', b'{"label": 1e999}', b"[[", b" 3\n"]),
    st.binary(max_size=6),
)


@st.composite
def shards(draw: st.DrawFn) -> bytes:
    """A tar file of images, classes and other members; now and then with bytes changed."""
    buffer = io.BytesIO()
    picture(1, (4, 4)).save(png := io.BytesIO(), "PNG")
    with tarfile.open(
        fileobj=buffer, mode="w", format=draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    ) as archive:
        for key in draw(st.lists(KEYS, max_size=5)):
            members = {".png": png.getvalue()}
            if draw(st.integers(0, 5)):
                members[draw(st.sampled_from([".cls", ".json", ".CLS"]))] = draw(LABELS)
            for suffix, content in members.items():
                info = tarfile.TarInfo(key + suffix)
                info.size = len(content)
                info.type = draw(
                    st.sampled_from([tarfile.REGTYPE] * 12 + [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
                )
                archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    content = bytearray(buffer.getvalue())
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content)


@settings(FUZZ, max_examples=1000)
@given(shards())
def test_shards_are_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "train.tar").write_bytes(content)
        try:
            source = open_source(f"wds:{folder}", "train")
        except DataError as error:
            printable(error).encode()
            return
        for index in range(len(source)):
            printable(source.describe(index)).encode()
            try:
                image, target = source[index]
            except BrokenImageError:
                continue
            assert (image.mode, 0 <= target < len(source.class_names) <= 100_000) == ("RGB", True)


PLAIN = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.one_of(
    PLAIN,
    st.binary(min_size=1, max_size=6).map(lambda name: os.fsdecode(name.replace(b"/", b"_").replace(b"\0", b"_"))),
    st.sampled_from(["._x", "__MACOSX", ".ipynb_checkpoints", "@eaDir", "a.b.c", "-rf", "$x_{$", "[bold]", "\x1b[2J"]),
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 100)
SUFFIXES = st.sampled_from([*sorted(EXTENSIONS), ".PNG", ".Jpeg", ".txt", "", ".png.txt"])


@settings(FUZZ, max_examples=100)
@given(st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), NAMES, SUFFIXES), min_size=1, max_size=8))
def test_trees_of_any_names_are_found_by_the_rule(files: list[tuple[list[str], str, str]]) -> None:
    root = tempfile.mkdtemp()
    expected = set()
    try:
        for folders, name, suffix in files:
            path = Path(root, *folders, name + suffix)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:  # a folder of this name is there as a file, or the other way round
                continue
            parts = path.relative_to(root).parts
            hidden = any(part.startswith(".") or part in SYSTEM_NAMES for part in parts)
            if not hidden and os.path.splitext(parts[-1])[1].lower() in readable_extensions():  # noqa: PTH122
                expected.add(path)
        assert {Path(root, name) for name in images_below(root, LeftOut())} == expected
        try:
            assert set(find_images([root])) == expected
            source = FolderSource(root, "")
            assert {Path(source.describe(index)) for index in range(len(source))} <= expected
        except DataError as error:
            printable(error).encode()
    finally:
        shutil.rmtree(root)
