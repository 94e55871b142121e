"""Images with masks for training: how a split is opened, how both are transformed together, how batches are made."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sequencer2d.data.config import DataConfig
from sequencer2d.data.joined import JoinedSource
from sequencer2d.data.labels import IGNORED, LabelRules
from sequencer2d.data.mask_folders import CLASSES, MaskFolder, read_class_names
from sequencer2d.data.mask_parquet import MaskParquet, has_parquet
from sequencer2d.data.mask_sets import MASK_SETS
from sequencer2d.data.samples import Samples, refuse
from sequencer2d.data.sources import Source
from sequencer2d.data.transforms import color_jitter, draw_filter
from sequencer2d.errors import ConfigError, DataError

_TRIES = 10
"""Crops that are drawn for `class_limit`, at most, as in mmsegmentation."""


def open_masks(config: DataConfig, split: str) -> Source:
    """The split of a folder of images and masks.

    `data.source` is `folder` with `data.root`, the path of such a folder, or a name in `MASK_SETS` with `data.root`.
    A folder holds the names of its classes in `classes.txt`. A folder of Parquet files, as the Hugging Face hub stores
    data sets, is read too. Splits joined by "+" are read as one.

    Raises:
        DataError: what `MaskFolder` and `read_class_names` refuse, or no folder.
        ConfigError: label rules for a data set that has its own.
    """
    if "+" in split:
        return JoinedSource([open_masks(config, part) for part in split.split("+")])
    known = MASK_SETS.get(config.source)
    root = config.root if known or config.source == "folder" else config.source
    if not root:
        raise DataError("no folder of images and masks given; set data.root")
    if not Path(root).is_dir():
        raise DataError(
            f"no folder {root}; data.source for task=segmentation is folder, a path, or one of {', '.join(MASK_SETS)}, "
            "and data.root the folder"
        )
    options: dict[str, Any] = {"checked": config.checked_masks}
    if known is None:
        names = read_class_names(Path(root, CLASSES))
        rules = LabelRules(len(names), config.ignored_labels, config.reduce_zero)
    elif config.reduce_zero or config.ignored_labels != DataConfig.ignored_labels:
        raise ConfigError(
            f"{config.source} has its own label rules: leave out data.ignored_labels and data.reduce_zero"
        )
    else:
        names, rules = known.class_names, known.rules
    if has_parquet(Path(root)):
        return MaskParquet(root, split, names, rules, config.decoding, **options)
    if known is not None:
        options["layout"] = known.layout
    return MaskFolder(root, split, names, rules, config.decoding, **options)


class JitterCropFlip:
    """Training: scale jitter, a crop in which no class takes too much, horizontal flip, changes of color.

    The image is resized so that it just covers `image_size`, times a factor from `scale_jitter`. Where the result is
    smaller than the crop, it is padded on the right and below: the image with the mean color, the mask with `IGNORED`.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        jitter = config.color_jitter
        self.colors: Callable[[Image.Image], Image.Image] | None = None
        if config.photometric_distortion:
            self.colors = distort_colors
        elif jitter:
            self.colors = color_jitter(jitter)
        self.ground = tuple(round(255 * value) for value in config.mean)

    def __call__(self, image: Image.Image, mask: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self._scaled(image, mask)
        box = self._box(mask)
        image, mask = _cut(image, box, self.ground), _cut(mask, box, IGNORED)
        if random.random() < self.config.hflip:
            image, mask = (picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (image, mask))
        return np.asarray(self.colors(image) if self.colors else image), np.asarray(mask)

    def _scaled(self, image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
        height, width = self.config.size
        factor = random.uniform(*self.config.scale_jitter) * max(height / image.height, width / image.width)
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, draw_filter(self.config.interpolation))
        return image, mask.resize(size, Image.Resampling.NEAREST)

    def _box(self, mask: Image.Image) -> tuple[int, int, int, int]:
        height, width = self.config.size
        for _ in range(_TRIES):
            left, top = random.randint(0, max(0, mask.width - width)), random.randint(0, max(0, mask.height - height))
            box = (left, top, left + width, top + height)
            if self.config.class_limit == 1 or _most_frequent(_cut(mask, box, IGNORED)) < self.config.class_limit:
                break
        return box

    def __repr__(self) -> str:
        c = self.config
        return (
            f"JitterCropFlip(size={c.size}, scale={c.scale_jitter}, class_limit={c.class_limit}, hflip={c.hflip}, "
            f"interpolation={c.interpolation}, color_jitter={c.color_jitter}, "
            f"photometric_distortion={c.photometric_distortion})"
        )


def distort_colors(image: Image.Image) -> Image.Image:
    """SSD's photometric distortion, as in mmsegmentation, with torchvision's operations.

    Each with probability 1/2: brightness by up to 1/8, contrast and saturation by up to 1/2, hue by up to a tenth of
    the circle. The contrast changes before the saturation and the hue or, with the same probability, after them.
    Brightness is a factor here; in mmsegmentation it is a sum of up to 32 levels.
    """
    from torchvision.transforms import functional as colors

    contrast_first = random.random() < 0.5

    def contrast(image: Image.Image) -> Image.Image:
        return colors.adjust_contrast(image, random.uniform(0.5, 1.5)) if random.random() < 0.5 else image

    if random.random() < 0.5:
        image = colors.adjust_brightness(image, random.uniform(0.875, 1.125))
    if contrast_first:
        image = contrast(image)
    if random.random() < 0.5:
        image = colors.adjust_saturation(image, random.uniform(0.5, 1.5))
    if random.random() < 0.5:
        image = colors.adjust_hue(image, random.uniform(-0.1, 0.1))
    return image if contrast_first else contrast(image)


class WholeImage:
    """Evaluation and prediction: the whole image, resized until it just covers `image_size`; the mask as it is.

    The image keeps its proportions. Its longer side has at most `LONGEST` times the longer side of `image_size`.
    """

    LONGEST = 4

    def __init__(self, config: DataConfig) -> None:
        self.size, self.resampling = config.size, Image.Resampling[config.eval_interpolation.upper()]

    def __call__(self, image: Image.Image, mask: Image.Image | None) -> tuple[np.ndarray, np.ndarray | None]:
        height, width = self.size
        factor = max(height / image.height, width / image.width)
        factor = min(factor, self.LONGEST * max(self.size) / max(image.size))
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        pixels = np.asarray(image if size == image.size else image.resize(size, self.resampling))
        return pixels, None if mask is None else np.asarray(mask)

    def __repr__(self) -> str:
        return f"WholeImage(covers={self.size}, interpolation={self.resampling.name.lower()})"


def train_pairs(config: DataConfig) -> JitterCropFlip:
    """The transform of training. Raises `ConfigError` for augmentations that a mask cannot follow."""
    refuse(
        "segmentation",
        "whose masks must follow",
        ("data.auto_augment", config.auto_augment, "data.auto_augment="),
        ("data.crop=pad", config.crop == "pad", "data.crop=random-resized"),
        ("data.erasing", config.erasing > 0, "data.erasing=0"),
    )
    if config.photometric_distortion and config.color_jitter:
        raise ConfigError("data.photometric_distortion and data.color_jitter both change colors: set one of them")
    return JitterCropFlip(config)


def eval_pairs(config: DataConfig) -> WholeImage:
    """The transform of evaluation. Raises `ConfigError` unless the whole image is kept."""
    refuse(
        "segmentation",
        "whose masks must follow",
        (f"data.eval_crop={config.eval_crop}", config.eval_crop != "squash", "data.eval_crop=squash"),
        (f"data.crop_pct={config.crop_pct:g}", config.crop_pct != 1, "data.crop_pct=1"),
    )
    return WholeImage(config)


def stack_pairs(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor | list[dict[str, Tensor]]]:
    """Stack images, uint8 (B, H, W, 3), and labels, int64 (B, H, W).

    In evaluation, images may differ in size, and so may an image and its mask. Images then lie in the upper left of a
    batch of the largest sides, and the labels are a dictionary for each image: int64 `labels` (h, w) in the mask's own
    size, and `size`, int64 (2,), the height and width that the image takes in the batch.
    """
    images, masks = zip(*samples, strict=True)
    if len({shape for image, mask in samples for shape in (image.shape[:2], mask.shape)}) == 1:
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)).long()
    rows, columns = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    batch = np.zeros((len(images), rows, columns, 3), np.uint8)
    for place, image in zip(batch, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    sizes = [torch.tensor(image.shape[:2]) for image in images]
    listed = [
        {"labels": torch.from_numpy(mask.astype(np.int64)), "size": size}
        for mask, size in zip(masks, sizes, strict=True)
    ]
    return torch.from_numpy(batch), listed


IMAGES_AND_MASKS = Samples(open=open_masks, train_transform=train_pairs, eval_transform=eval_pairs, collate=stack_pairs)
"""Images with the class of every pixel; of one size in training."""


def _cut(picture: Image.Image, box: tuple[int, int, int, int], ground: int | tuple[int, ...]) -> Image.Image:
    """The part in a box, with `ground` where the box leaves the picture on the right and below."""
    cut = Image.new(picture.mode, (box[2] - box[0], box[3] - box[1]), ground)
    cut.paste(picture.crop((box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))))
    return cut


def _most_frequent(mask: Image.Image) -> float:
    """The largest share of one class in the pixels that are not ignored; 1 if all are."""
    counts = np.bincount(np.asarray(mask).ravel(), minlength=IGNORED + 1)[:IGNORED]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0
