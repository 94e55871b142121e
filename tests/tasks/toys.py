"""Two toy tasks, a row each: the mask of a digit's ink, and the box around it.

They stand for what dense tasks need: masks and lists of boxes as targets, a loss that the model computes, an inference
of several forward passes, metrics summed over batches and processes, higher or lower is better.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.digits import DigitsSource
from sequencer2d.data.samples import Samples
from sequencer2d.tasks import Task
from sequencer2d.tasks.task import Forward, Metric

IGNORED = 255


class Strokes:
    """The digits with a mask of their ink; the darkest gray level of the ink is ignored."""

    class_names: tuple[str, ...] = ("paper", "ink")

    def __init__(self, config: DataConfig, split: str) -> None:
        self.digits = DigitsSource(split)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        image, _ = self.digits[index]
        gray = np.asarray(image)[..., 0]
        return image, Image.fromarray(np.where(gray == 255, IGNORED, gray > 100).astype(np.uint8))

    def describe(self, index: int) -> str:
        return self.digits.describe(index)

    def identities(self) -> tuple[list[bytes], np.ndarray]:
        return list(self.digits.identities()[0]), np.zeros(len(self), np.int64)

    def size_of(self, index: int) -> object:
        return self.digits.size_of(index)


class Frames(Strokes):
    """The digits with the box around their ink: x0, y0, x1, y1 in pixels."""

    class_names = ("digit",)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        image, _ = self.digits[index]
        rows, columns = np.nonzero(np.asarray(image)[..., 0])
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return image, {"boxes": torch.tensor([box], dtype=torch.float32), "name": self.describe(index)}


class MirrorBoth:
    """Resize to the model's size, and in training mirror every other image together with its mask."""

    def __init__(self, config: DataConfig, train: bool) -> None:
        self.size, self.train = config.size, train

    def __call__(self, image: Image.Image, mask: Image.Image | None) -> tuple[np.ndarray, np.ndarray | None]:
        width_and_height = self.size[::-1]
        pixels = np.asarray(image.resize(width_and_height))
        labels = None if mask is None else np.asarray(mask.resize(width_and_height, Image.Resampling.NEAREST))
        if self.train and torch.rand(()) < 0.5:
            pixels = pixels[:, ::-1]
            labels = None if labels is None else labels[:, ::-1]
        return pixels, labels


class ScaleBoth:
    """Resize to the model's size, boxes too."""

    def __init__(self, config: DataConfig) -> None:
        self.size = config.size

    def __call__(self, image: Image.Image, target: dict[str, Any] | None) -> tuple[np.ndarray, Any]:
        scale = torch.tensor([self.size[1] / image.width, self.size[0] / image.height] * 2)
        target = None if target is None else {**target, "boxes": target["boxes"] * scale}
        return np.asarray(image.resize(self.size[::-1])), target


def stack_masks(samples: Any) -> tuple[Tensor, Tensor]:
    images, masks = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)).long()


def list_boxes(samples: Any) -> tuple[Tensor, list[Any]]:
    images, targets = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(images)), list(targets)


class Masker(nn.Module):
    """A 1×1 convolution on the last map, resized to the image: logits (B, classes, H, W)."""

    def __init__(self, backbone: Any, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.feature_info.channels()[-1], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.head(self.backbone(images)[-1]), images.shape[-2:], mode="bilinear")


class Framer(nn.Module):
    """Boxes (B, 4) of images; with targets a dictionary of losses, as torchvision's detectors give."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.feature_info.channels()[-1], 4)

    def forward(self, images: Tensor, targets: list[dict[str, Any]] | None = None) -> Any:
        boxes = self.head(self.backbone(images)[-1].mean((2, 3))).sigmoid() * images.shape[-1]
        if targets is None:
            return boxes
        return {"corners": F.l1_loss(boxes, torch.cat([target["boxes"] for target in targets]))}


def mask_loss(forward: Forward, images: Tensor, masks: Tensor, label_smoothing: float) -> Tensor:
    logits = forward(images).float()
    return F.cross_entropy(logits, masks, ignore_index=IGNORED, label_smoothing=label_smoothing)


def model_loss(forward: Forward, images: Tensor, targets: Any, label_smoothing: float) -> Tensor:
    return torch.stack(list(forward(images, targets).values())).sum()


def mirrored_too(forward: Forward, images: Tensor, _: Any) -> Tensor:
    return (forward(images).float() + forward(images.flip(-1)).float().flip(-1)) / 2


class Result:
    """What both results do alike: they are written with all their fields, and have no rows of classes."""

    def to_dict(self) -> dict[str, Any]:
        return vars(self)

    def class_rows(self) -> list[tuple[str, str]]:
        return []


@dataclass(frozen=True)
class Overlap(Result):
    """Mean intersection over union, in percent."""

    mean_iou: float
    per_class: tuple[float, ...]
    class_names: tuple[str, ...]
    count: int
    broken: int

    def rows(self) -> list[tuple[str, str]]:
        return [("mIoU", f"{self.mean_iou:.2f} %")]

    def class_rows(self) -> list[tuple[str, str]]:
        return [(name, f"{iou:.2f} %") for name, iou in zip(self.class_names, self.per_class, strict=True)]


class Confusion:
    """A confusion matrix of pixels."""

    def __init__(self, class_names: Any, outputs: np.ndarray | None = None) -> None:
        self.names = tuple(class_names)
        self.matrix, self.count = np.zeros((len(self.names),) * 2, np.int64), 0

    def add(self, outputs: Tensor, masks: Tensor) -> None:
        asked = masks != IGNORED
        pairs = masks[asked] * len(self.names) + outputs.argmax(1)[asked]
        self.matrix += pairs.bincount(minlength=self.matrix.size).reshape(self.matrix.shape).cpu().numpy()
        self.count += len(masks)

    def state(self) -> tuple[np.ndarray, int]:
        return self.matrix, self.count

    def result(self, states: Any, broken: int) -> Overlap:
        matrix = np.sum([matrix for matrix, _ in states], axis=0)
        right = matrix.diagonal()
        ious = 100 * right / (matrix.sum(0) + matrix.sum(1) - right)
        return Overlap(ious.mean(), tuple(ious), self.names, sum(count for _, count in states), broken)


@dataclass(frozen=True)
class Distance(Result):
    """Mean distance of a box's sides, in pixels."""

    error: float
    count: int
    broken: int

    def rows(self) -> list[tuple[str, str]]:
        return [("corner error", f"{self.error:.3f} px")]


class Distances:
    """The error of each box."""

    def __init__(self, class_names: Any, outputs: np.ndarray | None = None) -> None:
        self.errors: list[float] = []

    def add(self, outputs: Tensor, targets: list[dict[str, Any]]) -> None:
        truth = torch.cat([target["boxes"] for target in targets])
        self.errors += (outputs - truth).abs().mean(1).tolist()

    def state(self) -> list[float]:
        return self.errors

    def result(self, states: Any, broken: int) -> Distance:
        errors = [error for state in states for error in state]
        return Distance(math.fsum(errors) / len(errors), len(errors), broken)


@dataclass(frozen=True)
class Mask:
    """The class of each pixel of the file's image."""

    labels: np.ndarray
    names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"shares": {name: float((self.labels == k).mean()) for k, name in enumerate(self.names)}}

    def rows(self) -> list[tuple[str, str]]:
        return [(name, f"{share:.0%}") for name, share in self.to_dict()["shares"].items()]

    def draw(self, image: Image.Image) -> Image.Image:
        red = Image.new("RGB", image.size, "red")
        return Image.composite(Image.blend(image, red, 0.5), image, Image.fromarray(self.labels == 1))


@dataclass(frozen=True)
class Frame:
    """A box in pixels of the file's image."""

    box: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"boxes": [self.box]}

    def rows(self) -> list[tuple[str, str]]:
        return [("digit", " ".join(f"{side:.1f}" for side in self.box))]

    def draw(self, image: Image.Image) -> Image.Image:
        picture = image.copy()
        ImageDraw.Draw(picture).rectangle(self.box, outline="red")
        return picture


def masks_of(logits: Tensor, sizes: Any, class_names: Any, top_k: int) -> list[Mask]:
    resized = [F.interpolate(one[None], size, mode="bilinear")[0] for one, size in zip(logits, sizes, strict=True)]
    return [Mask(one.argmax(0).cpu().numpy(), tuple(class_names)) for one in resized]


def frames_of(boxes: Tensor, sizes: Any, class_names: Any, top_k: int) -> list[Frame]:
    return [
        Frame(tuple((box.view(2, 2) / 8 * torch.tensor([width, height])).flatten().tolist()))
        for box, (height, width) in zip(boxes, sizes, strict=True)
    ]


STROKES = Task(
    name="strokes",
    samples=Samples(
        open=Strokes,
        train_transform=lambda config: MirrorBoth(config, train=True),
        eval_transform=lambda config: MirrorBoth(config, train=False),
        collate=stack_masks,
    ),
    build=lambda create, outputs: Masker(create(features_only=True), outputs),
    loss=mask_loss,
    loss_name="cross entropy",
    infer=mirrored_too,
    meter=Confusion,
    metrics=(Metric("miou", field="mean_iou", label="mIoU", unit="%"),),
    decode=masks_of,
    columns=("class", "area"),
)
FRAMES = Task(
    name="frames",
    samples=Samples(open=Frames, train_transform=ScaleBoth, eval_transform=ScaleBoth, collate=list_boxes),
    build=lambda create, outputs: Framer(create(features_only=True)),
    loss=model_loss,
    loss_name="L1 distance, px",
    meter=Distances,
    metrics=(Metric("error", field="error", label="corner error", unit="px", digits=3, higher_is_better=False),),
    decode=frames_of,
    columns=("object", "box"),
)
