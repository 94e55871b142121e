"""Folders of images and masks: what is read, and what is refused before a run begins."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sequencer2d.data.images import PUBLISHED, BrokenImageError, decode, size_of
from sequencer2d.data.labels import LabelRules, read_labels
from sequencer2d.data.mask_folders import MaskFolder, read_class_names
from sequencer2d.data.mask_sets import MASK_SETS
from sequencer2d.errors import ConfigError, DataError
from tests.data.images import break_image, picture

CLASSES = ("road", "car", "sky")
VALUES = np.array([[0, 1, 2, 255], [2, 2, 1, 0], [255, 0, 0, 1]], np.uint8)


def write(root: Path, name: str, labels: np.ndarray = VALUES, split: str = "train", suffix: str = ".jpg") -> Path:
    """An image and its mask. Returns the mask's path."""
    image, mask = root / "images" / split / f"{name}{suffix}", root / "masks" / split / f"{name}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture(len(name), labels.shape[::-1]).save(image)
    Image.fromarray(labels).save(mask)
    return mask


def opened(root: Path, split: str = "train", **options: Any) -> MaskFolder:
    return MaskFolder(root, split, CLASSES, **options)


def test_images_and_masks_are_paired_by_name_at_any_depth(tmp_path: Path) -> None:
    write(tmp_path, "b")
    write(tmp_path, "city/a.1", 2 - VALUES % 3, suffix=".webp")
    source = opened(tmp_path)
    assert source.paths() == ["b.jpg", "city/a.1.webp"]
    image, mask = source[1]
    assert (image.mode, image.size, mask.mode) == ("RGB", (4, 3), "L")
    np.testing.assert_array_equal(np.asarray(mask), 2 - VALUES % 3)
    np.testing.assert_array_equal(np.asarray(source[0][1]), VALUES)
    assert source.identities()[0] == [b"b.jpg", b"city/a.1.webp"]
    files = (tmp_path / "images/train/b.jpg", tmp_path / "masks/train/b.png")
    assert source.size_of(0) == tuple(file.stat().st_size for file in files)


def test_a_split_is_found_under_another_name(tmp_path: Path) -> None:
    write(tmp_path, "a", split="validation")
    assert len(opened(tmp_path, "val")) == 1


def test_camvid_has_11_classes_and_ignores_the_value_11(tmp_path: Path) -> None:
    known = MASK_SETS["camvid"]
    assert (len(known.class_names), known.class_names[0], known.class_names[10]) == (11, "Sky", "Bicyclist")
    write(tmp_path, "a", np.arange(12, dtype=np.uint8).reshape(3, 4))
    _, mask = MaskFolder(tmp_path, "train", known.class_names, known.rules)[0]
    assert np.asarray(mask).ravel().tolist() == [*range(11), 255]


def test_reduced_zero_is_ignored_and_all_other_values_move_down(tmp_path: Path) -> None:
    path = write(tmp_path, "a", np.array([[0, 1, 3, 255]], np.uint8))
    assert read_labels(path, LabelRules(3, reduce_zero=True)).tolist() == [[255, 0, 2, 255]]
    Image.fromarray(np.array([[0, 4]], np.uint8)).save(path)
    with pytest.raises(DataError, match=r"holds the value 4; expected 3 classes \(1 to 3\), ignored: 0, 255"):
        read_labels(path, LabelRules(3, reduce_zero=True))


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16"])
def test_labels_do_not_depend_on_the_kind_of_png(mode: str, tmp_path: Path) -> None:
    labels = VALUES % 2 if mode == "1" else VALUES % 3
    image = Image.fromarray(labels.astype(np.uint16) if mode == "I;16" else labels)
    if mode == "1":
        image = Image.fromarray(labels.astype(bool))
    if mode == "P":
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    image.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as saved:
        assert saved.mode in (mode, "I")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png", LabelRules(3)), labels)


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_in_gray_of_few_bits_are_not_stretched(bits: int, tmp_path: Path) -> None:
    labels = np.arange(2**bits, dtype=np.uint8)[None].repeat(2, 0)
    packed = np.packbits(((labels[..., None] >> np.arange(bits)[::-1]) & 1).reshape(2, -1).astype(np.uint8), axis=1)
    write_gray_png(tmp_path / "mask.png", packed, labels.shape, bits)
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png", LabelRules(2**bits)), labels)


def write_gray_png(path: Path, rows: np.ndarray, shape: tuple[int, ...], bits: int) -> None:
    """A grayscale PNG file of rows that are packed already."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", shape[1], shape[0], bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def beyond(mask: Path) -> None:
    Image.fromarray(np.where(VALUES == 2, 7, VALUES)).save(mask)


def colors(mask: Path) -> None:
    Image.fromarray(VALUES).convert("RGB").save(mask)


def larger(mask: Path) -> None:
    Image.fromarray(VALUES.repeat(2, 1)).save(mask)


def deep(mask: Path) -> None:
    Image.fromarray(VALUES.astype(np.uint16) * 200).save(mask)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (beyond, r"b\.png holds the value 7; expected 3 classes \(0 to 2\), ignored: 255"),
        (colors, r"b\.png holds colors \(RGB\); expected the number of a class for each pixel"),
        (larger, r"b\.png has 8×3 pixels and its image 4×3"),
        (deep, r"b\.png holds the values 200, 400, 51000; expected"),
        (Path.unlink, r"1 of 3 images in .* have no mask in .*: b\.jpg; expected a file of the same name"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_one_line(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    masks = [write(tmp_path, name) for name in "abc"]
    spoil(masks[1])
    with pytest.raises(DataError, match=message) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)
    assert "more masks" not in str(error.value)


def test_all_masks_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    for name in "abc":
        beyond(write(tmp_path, name))
    with pytest.raises(DataError, match=r"a\.png holds the value 7.*\(2 more masks do not fit\)"):
        opened(tmp_path)


def test_masks_of_ignored_pixels_alone_are_refused_only_if_all_are(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, name, np.full_like(VALUES, 255))
    with pytest.raises(
        DataError, match=r"a\.png and all other masks .* ignored pixels alone: there is nothing to learn"
    ):
        opened(tmp_path)
    write(tmp_path, "c")
    assert len(opened(tmp_path)) == 3


def test_binary_masks_of_0_and_255_are_refused_since_255_is_ignored(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, name, np.where(VALUES == 1, 255, 0).astype(np.uint8))
    with pytest.raises(DataError, match=r"a\.png and all other .* hold the class 'road' and ignored pixels alone"):
        opened(tmp_path)


def test_classes_that_no_mask_holds_are_named_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a", np.minimum(VALUES, 1))
    opened(tmp_path)
    assert caplog.messages == ["no pixel of sky in the 1 masks that were checked"]


def test_masks_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png and all other masks that were checked cannot be read"):
        opened(tmp_path)


def test_masks_of_photos_that_were_not_turned_are_told_from_others(tmp_path: Path) -> None:
    mask = write(tmp_path, "a")
    Image.fromarray(VALUES.T.copy()).save(mask)
    with pytest.raises(DataError, match=r"has 3×4 pixels and its image 4×3 \(or set data\.orientation=stored"):
        opened(tmp_path)


def test_masks_beyond_those_that_are_checked_count_as_broken_images(tmp_path: Path) -> None:
    masks = [write(tmp_path, name) for name in "abcde"]
    beyond(masks[1])
    larger(masks[3])
    source = opened(tmp_path, checked=3)  # a, c, e
    for number, message in ((1, "its mask holds the value 7"), (3, "its mask has 8×3 pixels and its image 4×3")):
        with pytest.raises(BrokenImageError, match=message):
            source[number]
    with pytest.raises(DataError, match=r"b\.png holds the value 7"):
        opened(tmp_path, checked=5)


def test_files_that_cannot_be_decoded_are_left_to_the_loader(tmp_path: Path) -> None:
    break_image(write(tmp_path, "a", np.random.default_rng(0).integers(0, 3, (40, 40), dtype=np.uint8)))
    write(tmp_path, "b")
    source = opened(tmp_path)
    with pytest.raises(BrokenImageError):
        source[0]
    assert source[1][1].size == (4, 3)


def test_a_mask_belongs_to_the_image_as_it_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "images/train/a.jpg"
    write(tmp_path, "a")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(1, (3, 4)).save(path, exif=exif)
    assert size_of(path) == decode(path).size == (4, 3)
    assert size_of(path, PUBLISHED) == decode(path, PUBLISHED).size == (3, 4)
    assert len(opened(tmp_path)) == 1
    with pytest.raises(DataError, match="has 4×3 pixels and its image 3×4"):
        opened(tmp_path, decoding=PUBLISHED)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, "has no folder images"),
        (lambda root: (root / "images").mkdir(), "has no folder masks"),
        (lambda root: write(root, "a", split="test"), "no folder for the split 'train'.*test"),
        (lambda root: (write(root, "a"), write(root, "a", suffix=".webp")), r"share a mask: a\.jpg, a\.webp"),
    ],
)
def test_folders_that_do_not_fit_are_refused(prepare: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_a_split_without_masks_and_one_without_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "images/test").mkdir()
    with pytest.raises(DataError, match=r"has no masks: .*masks/test is missing"):
        opened(tmp_path, "test")
    (tmp_path / "masks/test").mkdir()
    with pytest.raises(DataError, match=r"no images in .*images/test"):
        opened(tmp_path, "test")


def test_masks_without_an_image_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b")
    (tmp_path / "images/train/a.jpg").unlink()
    assert opened(tmp_path).paths() == ["b.jpg"]
    assert "1 masks without an image (a.png)" in caplog.text


def test_class_names_stand_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffroad\r\nside walk \ncar\n\n", encoding="utf-8")
    assert read_class_names(path) == ("road", "side walk", "car")
    for text, message in (
        ("road\n\ncar\n", "line 2 of .* is empty"),
        ("road\ncar\nroad\n", "names the classes road twice"),
        ("road\n", "names 1 classes; expected 2 to 255"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_class_names(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_class_names(tmp_path / "missing.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "masks of 0 classes"),
        ({"num_classes": 256}, "masks of 256 classes"),
        ({"num_classes": 3, "ignored": (2,)}, "value 2 of a mask cannot be both"),
        ({"num_classes": 3, "ignored": (3,), "reduce_zero": True}, "value 3 of a mask cannot be both"),
        ({"num_classes": 3, "ignored": (-1,)}, "cannot hold the value -1"),
        ({"num_classes": 3, "values": (7, 8)}, "3 classes need as many different values"),
        ({"num_classes": 2, "values": (7, 7)}, "2 classes need as many different values"),
        ({"num_classes": 2, "values": (7, 8), "reduce_zero": True}, "and no reduce_zero"),
        ({"num_classes": 2, "values": (7, 8), "ignored": (8,)}, "value 8 of a mask cannot be both"),
    ],
)
def test_rules_that_contradict_themselves_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabelRules(**options)


def test_a_name_for_each_class_and_at_least_two_are_needed(tmp_path: Path) -> None:
    write(tmp_path, "a")
    with pytest.raises(DataError, match="3 class names for 11 classes"):
        opened(tmp_path, rules=LabelRules(11))
    with pytest.raises(DataError, match="1 class names"):
        MaskFolder(tmp_path, "train", ("road",))
