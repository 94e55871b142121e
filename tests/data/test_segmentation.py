"""Images and masks are transformed together, and sources are opened with their label rules."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sequencer2d.data import segmentation
from sequencer2d.data.config import DataConfig
from sequencer2d.data.segmentation import eval_pairs, open_masks, stack_pairs, train_pairs
from sequencer2d.errors import ConfigError, DataError
from tests.data.test_mask_folders import VALUES, write

PLAIN: dict[str, Any] = {"auto_augment": "", "erasing": 0.0, "eval_crop": "squash", "crop_pct": 1.0}


def config(**fields: Any) -> DataConfig:
    return DataConfig(**{**PLAIN, "image_size": (16, 24), **fields})


def pair(size: tuple[int, int] = (32, 48)) -> tuple[Image.Image, Image.Image]:
    """An image whose gray level is 20 times its label, in blocks of 8 pixels."""
    labels = np.random.default_rng(0).integers(0, 8, (size[0] // 8, size[1] // 8)).astype(np.uint8)
    labels = labels.repeat(8, 0).repeat(8, 1)
    return Image.fromarray(labels * 20).convert("RGB"), Image.fromarray(labels)


def test_the_image_and_its_mask_stay_together_through_scale_crop_and_flip() -> None:
    transform = train_pairs(config(interpolation="nearest", scale_jitter=(0.4, 2.5), mean=(1.0, 1.0, 1.0)))
    random.seed(0)
    kinds = set()
    for _ in range(40):
        pixels, labels = transform(*pair())
        assert pixels.shape == (16, 24, 3)
        expected = np.where(labels == 255, 255, labels * 20)
        np.testing.assert_array_equal(pixels, expected[..., None].repeat(3, 2))
        kinds.add((bool((labels == 255).any()), pixels.tobytes()))
    assert len(kinds) == 40
    assert {padded for padded, _ in kinds} == {True, False}


def test_a_crop_at_scale_1_is_a_part_of_the_image_or_its_mirror() -> None:
    image, mask = pair((16, 48))
    whole = np.asarray(mask)
    transform = train_pairs(config(scale_jitter=(1.0, 1.0), class_limit=1.0))
    random.seed(0)
    parts = {(k, flip): whole[:, k : k + 24][:, :: -1 if flip else 1].tobytes() for k in range(25) for flip in (0, 1)}
    found = [transform(image, mask)[1].tobytes() for _ in range(60)]
    assert set(found) <= set(parts.values())
    assert len(set(found)) > 20


def test_a_small_image_is_padded_right_and_below_with_the_mean_and_ignored() -> None:
    image, mask = pair((16, 24))
    transform = train_pairs(config(scale_jitter=(0.5, 0.5), hflip=0.0, class_limit=1.0, mean=(0.2, 0.4, 0.6)))
    pixels, labels = transform(image, mask)
    assert (labels[8:] == 255).all()
    assert (labels[:, 12:] == 255).all()
    assert (labels[:8, :12] < 8).all()
    assert (pixels[8:] == (51, 102, 153)).all()


@pytest.mark.parametrize(("limit", "expected"), [(1.0, False), (0.75, True)])
def test_crops_of_one_class_are_drawn_again(limit: float, expected: bool) -> None:
    labels = np.zeros((16, 240), np.uint8)
    labels[:, 100:110] = 1
    image, mask = Image.new("RGB", (240, 16)), Image.fromarray(labels)
    transform = train_pairs(config(scale_jitter=(1.0, 1.0), class_limit=limit))
    random.seed(0)
    mixed = sum(len(np.unique(transform(image, mask)[1])) == 2 for _ in range(50))
    assert (mixed > 20) == expected


def test_colors_change_and_labels_do_not() -> None:
    image, mask = pair((16, 24))
    transform = train_pairs(config(scale_jitter=(1.0, 1.0), hflip=0.0, color_jitter=0.5))
    torch.manual_seed(0)
    pixels, labels = transform(image, mask)
    assert (pixels != np.asarray(image)).any()
    np.testing.assert_array_equal(labels, np.asarray(mask))


def test_evaluation_takes_the_whole_image_and_leaves_the_mask() -> None:
    transform = eval_pairs(config(eval_interpolation="nearest"))
    image, mask = pair()
    pixels, labels = transform(image, mask)
    np.testing.assert_array_equal(pixels, np.asarray(image)[1::2, 1::2])
    np.testing.assert_array_equal(labels, np.asarray(mask))
    assert transform(image, None)[1] is None
    for size, expected in (((20, 20), (24, 24, 3)), ((5, 100), (5, 96, 3)), ((16, 24), (16, 24, 3))):
        assert transform(Image.new("RGB", size[::-1]), None)[0].shape == expected


def test_images_of_one_size_are_stacked_and_others_lie_in_the_upper_left() -> None:
    whole = [(np.full((4, 6, 3), k, np.uint8), np.full((4, 6), k, np.uint8)) for k in (1, 2)]
    images, labels = stack_pairs(whole)
    assert (images.dtype, tuple(images.shape)) == (torch.uint8, (2, 4, 6, 3))
    assert (labels.dtype, tuple(labels.shape)) == (torch.int64, (2, 4, 6))
    wide = (np.full((3, 9, 3), 3, np.uint8), np.full((30, 90), 3, np.uint8))
    images, listed = stack_pairs([whole[0], wide])
    assert tuple(images.shape) == (2, 4, 9, 3)
    assert [(one["size"].tolist(), tuple(one["labels"].shape)) for one in listed] == [
        ([4, 6], (4, 6)),
        ([3, 9], (30, 90)),
    ]
    assert (images[1, :3] == 3).all()
    assert (images[0, :, 6:] == 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"auto_augment": "rand-m9"}, r"set data\.auto_augment=$"),
        ({"crop": "pad"}, "set data.crop=random-resized"),
        ({"erasing": 0.25}, "set data.erasing=0"),
        ({"eval_crop": "center"}, "set data.eval_crop=squash"),
        ({"crop_pct": 0.875}, "set data.crop_pct=1"),
    ],
)
def test_augmentation_that_masks_cannot_follow_is_refused(fields: dict[str, Any], message: str) -> None:
    build = eval_pairs if {"eval_crop", "crop_pct"} & fields.keys() else train_pairs
    with pytest.raises(ConfigError, match=message):
        build(config(**fields))


def test_a_folder_names_its_classes_and_camvid_needs_no_list(tmp_path: Path) -> None:
    write(tmp_path, "a", VALUES % 3)
    write(tmp_path, "a", VALUES % 3, split="val")
    with pytest.raises(DataError, match=r"classes\.txt cannot be read"):
        open_masks(config(root=str(tmp_path)), "train")
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n")
    for fields in ({"root": str(tmp_path)}, {"source": str(tmp_path)}):
        source = open_masks(config(**fields), "train+val")
        assert (len(source), source.class_names) == (2, ("road", "car", "sky"))
    assert len(open_masks(config(source="camvid", root=str(tmp_path)), "train").class_names) == 11


def test_label_rules_of_the_configuration_are_those_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "a", np.array([[0, 1, 2, 9]], np.uint8))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    fields = {"root": str(tmp_path), "ignored_labels": (9,), "reduce_zero": True}
    assert np.asarray(open_masks(config(**fields), "train")[0][1]).tolist() == [[255, 0, 1, 255]]
    with pytest.raises(ConfigError, match="camvid has its own label rules"):
        open_masks(config(**fields, source="camvid"), "train")


def test_a_folder_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"set data\.root"):
        open_masks(config(), "train")
    with pytest.raises(DataError, match="no folder nowhere"):
        open_masks(config(source="nowhere"), "train")


class Dice:
    """Random numbers of the test's own: those of `random` in turn, and the low or the high end of each range."""

    def __init__(self, throws: Sequence[float], end: int) -> None:
        self.throws, self.end = iter(throws), end

    def random(self) -> float:
        return next(self.throws)

    def uniform(self, *ends: float) -> float:
        return ends[self.end]


BRIGHTNESS, CONTRAST = ("brightness", 0.875, 1.125), ("contrast", 0.5, 1.5)
SATURATION, HUE = ("saturation", 0.5, 1.5), ("hue", -0.1, 0.1)


@pytest.mark.parametrize(
    ("throws", "expected"),
    [
        # Contrast before or after the others?, then each of the four: changed or not. 0.5 is the first "no".
        ((0, 0.5, 0.5, 0.5, 0.5), []),
        ((0, 0.49, 0.5, 0.5, 0.5), [BRIGHTNESS]),
        ((0, 0.5, 0.49, 0.5, 0.5), [CONTRAST]),
        ((0, 0.5, 0.5, 0.49, 0.5), [SATURATION]),
        ((0, 0.5, 0.5, 0.5, 0.49), [HUE]),
        ((0.49, 0, 0, 0, 0), [BRIGHTNESS, CONTRAST, SATURATION, HUE]),
        ((0.5, 0, 0, 0, 0), [BRIGHTNESS, SATURATION, HUE, CONTRAST]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", [0, 1])
def test_photometric_distortion_has_the_ranges_and_the_order_of_ssd(
    throws: Sequence[float], expected: list[tuple[str, float, float]], end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Liu et al. 2016, as mmsegmentation does it: ± 1/8, ± 1/2, ± 1/2 and a tenth of the circle, each with 1/2."""
    from torchvision.transforms import functional as colors

    monkeypatch.setattr(segmentation, "random", Dice(throws, end))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    by_hand = image
    for name, *ends in expected:
        by_hand = getattr(colors, f"adjust_{name}")(by_hand, ends[end])
    assert np.array_equal(segmentation.distort_colors(image), by_hand)


@pytest.mark.parametrize(
    ("given", "size", "found"),
    [
        ((30, 20), (40, 40), (60, 40)), ((20, 30), (40, 40), (40, 60)), ((80, 10), (40, 40), (160, 20)),
        ((1000, 1), (40, 40), (160, 1)), ((60, 40), (40, 40), (60, 40)), ((30, 20), (10, 30), (30, 20)),
    ],
)  # fmt: skip
def test_a_whole_image_covers_the_size_and_is_at_most_four_times_as_long(
    given: tuple[int, int], size: tuple[int, int], found: tuple[int, int]
) -> None:
    """(width, height) before and after, and (height, width) to cover; the mask stays as it is."""
    transform = segmentation.WholeImage(DataConfig(image_size=size))
    pixels, mask = transform(Image.new("RGB", given), Image.new("L", given))
    assert (pixels.shape, mask.shape) == ((found[1], found[0], 3), (given[1], given[0]))
    assert transform(Image.new("RGB", given), None)[1] is None


def test_the_largest_share_of_a_class_leaves_ignored_pixels_out() -> None:
    mask = np.array([[0, 1, 1, 255, 255, 255]], np.uint8)
    assert segmentation._most_frequent(Image.fromarray(mask)) == pytest.approx(2 / 3)
    assert segmentation._most_frequent(Image.fromarray(np.full((2, 2), 255, np.uint8))) == 1
    assert segmentation._most_frequent(Image.fromarray(np.full((2, 2), 254, np.uint8))) == 1
