"""Images and masks are transformed together, and sources are opened with their label rules."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
