"""Images with boxes for training: how a split is opened, how both are transformed together, how batches are made."""

import importlib.util
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sequencer2d.data.coco import Boxes, CocoBoxes
from sequencer2d.data.config import DataConfig
from sequencer2d.data.joined import JoinedSource
from sequencer2d.data.samples import Samples, refuse
from sequencer2d.data.sources import Source
from sequencer2d.data.transforms import color_jitter, draw_filter
from sequencer2d.errors import DataError, UserError, how_to_install


def open_boxes(config: DataConfig, split: str, *, train: bool = False) -> Source:
    """The split of a data set in COCO's format: `data.source` is `folder` with `data.root`, or its path.

    Raises:
        DataError: what `CocoBoxes` refuses, or no folder.
        UserError: the package that measures AP is not installed.
    """
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise UserError(f"task=detection measures AP with faster-coco-eval: {how_to_install('detection')}")
    if "+" in split:
        return JoinedSource([open_boxes(config, part, train=train) for part in split.split("+")])
    root = config.root if config.source == "folder" else config.source
    if not root:
        raise DataError("no folder of images and boxes given; set data.root to a data set in COCO's format")
    return CocoBoxes(root, split, train=train, decoding=config.decoding, max_missing=config.max_broken)


def open_training(config: DataConfig, split: str) -> Source:
    """The same without crowd boxes and images without boxes."""
    return open_boxes(config, split, train=True)


class FitToSides:
    """Resize an image, sides in proportion, as large as its sides allow, and in training flip it and change its colors.

    `data.image_size` is the shorter and the longer side, at most: 800, 1333 in COCO's recipes. In training the shorter
    one is drawn from `data.short_sides`, if there are some.
    """

    def __init__(self, config: DataConfig, train: bool) -> None:
        self.config, self.train = config, train
        jitter = config.color_jitter if train else 0
        self.colors = color_jitter(jitter) if jitter else None

    def __call__(self, image: Image.Image, target: Boxes | None) -> tuple[np.ndarray, dict[str, Any] | None]:
        config, file = self.config, (image.height, image.width)
        short, long = min(config.size), max(config.size)
        if self.train and config.short_sides:
            short = random.choice(config.short_sides)
        factor = min(short / min(file), long / max(file))
        rows, columns = (max(1, round(side * factor)) for side in file)
        interpolation = config.interpolation if self.train else config.eval_interpolation
        image = image.resize((columns, rows), draw_filter(interpolation))
        mirrored = self.train and random.random() < config.hflip
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = np.asarray(self.colors(image) if self.colors else image)
        return pixels, None if target is None else _moved(target, file, (rows, columns), mirrored, self.train)

    def __repr__(self) -> str:
        c = self.config
        more = f", short_sides={c.short_sides}, hflip={c.hflip}, color_jitter={c.color_jitter}" if self.train else ""
        return f"FitToSides(sides={c.size}{more})"


def train_boxes(config: DataConfig) -> FitToSides:
    """The transform of training. Raises `ConfigError` for augmentations that boxes cannot follow."""
    refuse(
        "detection",
        "whose boxes must follow",
        ("data.auto_augment", config.auto_augment, "data.auto_augment="),
        ("data.crop=pad", config.crop == "pad", "data.crop=random-resized"),
        ("data.erasing", config.erasing > 0, "data.erasing=0"),
    )
    return FitToSides(config, train=True)


def eval_boxes(config: DataConfig) -> FitToSides:
    """The transform of evaluation and prediction. Raises `ConfigError` unless the whole image is kept."""
    refuse(
        "detection",
        "which keeps the whole image",
        (f"data.eval_crop={config.eval_crop}", config.eval_crop != "squash", "data.eval_crop=squash"),
        (f"data.crop_pct={config.crop_pct:g}", config.crop_pct != 1, "data.crop_pct=1"),
    )
    return FitToSides(config, train=False)


def pad_and_list(samples: Sequence[tuple[np.ndarray, dict[str, Any]]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Images in the upper left of a batch uint8 (B, H, W, 3) of the largest sides, and a dictionary for each."""
    images, targets = zip(*samples, strict=True)
    rows, columns = max(image.shape[0] for image in images), max(image.shape[1] for image in images)
    batch = np.zeros((len(images), rows, columns, 3), np.uint8)
    for place, image in zip(batch, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    listed = [{key: torch.as_tensor(value) for key, value in target.items()} for target in targets]
    return torch.from_numpy(batch), listed


IMAGES_AND_BOXES = Samples(
    open=open_boxes, open_training=open_training, train_transform=train_boxes, eval_transform=eval_boxes,
    collate=pad_and_list,
)  # fmt: skip
"""Images of any sizes with boxes. A batch's targets say each image's `size` in the batch and `file_size`."""


def _moved(target: Boxes, file: tuple[int, int], size: tuple[int, int], mirrored: bool, train: bool) -> dict[str, Any]:
    """The target after resizing and mirroring.

    In training, boxes end at the image's border; evaluation takes them as the file has them, as the reference does.
    """
    boxes = target["boxes"] * np.array([size[1] / file[1], size[0] / file[0]] * 2, np.float32)
    if mirrored:
        boxes = np.stack([size[1] - boxes[:, 2], boxes[:, 1], size[1] - boxes[:, 0], boxes[:, 3]], 1)
    if train:
        boxes = boxes.clip(0, np.array([size[1], size[0]] * 2, np.float32))
    moved = {**target, "boxes": boxes.astype(np.float32), "size": np.array(size), "file_size": np.array(file)}
    if train:
        kept = (boxes[:, 2] - boxes[:, 0] > 0) & (boxes[:, 3] - boxes[:, 1] > 0)
        moved |= {key: moved[key][kept] for key in ("boxes", "labels", "crowd", "area")}
    else:
        moved["file_boxes"] = target["boxes"]
    return moved
