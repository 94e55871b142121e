"""Segmentation: the class of every pixel."""

import colorsys
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sequencer2d.data.labels import IGNORED
from sequencer2d.data.segmentation import IMAGES_AND_MASKS
from sequencer2d.dense import Segmenter, SemanticFPN, UPerNet
from sequencer2d.files import atomic_write
from sequencer2d.tasks.backbone import backbone_of_strides
from sequencer2d.tasks.drawing import with_caption
from sequencer2d.tasks.finite import refuse_broken
from sequencer2d.tasks.overlap import OverlapMeter
from sequencer2d.tasks.pixelwise import Inference, best_labels
from sequencer2d.tasks.task import Forward, Metric, Task

STRIDES = (4, 8, 16, 32)
"""Strides of the maps that PVT's decoder takes, in pixels."""
_OVERLAY = 0.55
"""Opacity of the classes' colors over an image."""
_VISIBLE = 0.0005
"""Share of the image that a class in a legend has, at least: about 90 pixels of 480 × 360."""


@dataclass(frozen=True)
class Segments:
    """The class of each pixel of an image; a `Finding`."""

    labels: np.ndarray
    """uint8 (H, W), in the size of the file's image."""
    names: tuple[str, ...]
    """Name of every class."""
    most: int
    """Most classes that a table shows. A legend shows all that can be seen."""
    least: float = 0.0
    """Least share of the image, 0 to 1, of a class that a table or a legend shows."""

    def shares(self) -> list[tuple[int, float]]:
        """(class, share of the image) of the classes in a table, the largest first."""
        return self._found(self.least)[: self.most]

    def _found(self, least: float) -> list[tuple[int, float]]:
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        shares = [(int(k), int(counts[k]) / self.labels.size) for k in np.argsort(-counts, kind="stable") if counts[k]]
        return [(k, share) for k, share in shares if share >= least]

    def above(self, threshold: float) -> "Segments":
        """The same, but its table and legend show only classes that cover at least this share of the image."""
        return replace(self, least=threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the share of each class, without the pixels."""
        return {"shares": {self.names[k]: share for k, share in self.shares()}}

    def rows(self) -> list[tuple[str, str]]:
        """Name and share of each class."""
        return [(self.names[k], f"{share:7.2%}") for k, share in self.shares()]

    def draw(self, image: Image.Image) -> Image.Image:
        """The image under the classes' colors, with a legend of all that can be seen below it."""
        colors = np.array([color_of(k) for k in range(len(self.names))], np.uint8)
        over = Image.blend(image, Image.fromarray(colors[self.labels]), _OVERLAY)
        shares = self._found(max(self.least, _VISIBLE))
        lines = [f"{share:.1%}  {self.names[k]}" for k, share in shares]
        return with_caption(over, lines, [color_of(k) for k, _ in shares])


def color_of(number: int) -> tuple[int, int, int]:
    """A color for a class: hues by the golden ratio, in six shades, so that classes of close numbers look different.

    Class 0 is blue. Numbers whose hues nearly meet again, 8 or 13 apart, differ in shade.
    """
    hue = (0.6 + number * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (1.0, 0.65, 0.35)[number % 3], (1.0, 0.85)[number % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def segmenter(
    create: Callable[..., nn.Module], outputs: int, decoder: Callable[..., nn.Module] = SemanticFPN
) -> Segmenter:
    """A decoder on maps of strides 4 to 32. Raises `ConfigError` for a backbone of one size of images."""
    return Segmenter(backbone_of_strides(create, STRIDES), outputs, decoder)


def pixel_cross_entropy(forward: Forward, images: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross entropy in nats, computed in float32: the sum over pixels that are not ignored, divided by all pixels.

    This is mmsegmentation's mean. It is 0, not NaN, where all pixels are ignored.

    Args:
        forward: images (B, 3, H, W) → logits (B, classes, H, W).
        images: normalized.
        targets: int64 (B, H, W) labels.
        label_smoothing: share of the target that is spread over all classes, 0 to <1.
    """
    total = F.cross_entropy(
        forward(images).float(), targets, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )
    return total / targets.numel()


def segments(
    logits: Tensor, sizes: Sequence[tuple[int, int]], class_names: Sequence[str], top_k: int
) -> list[Segments]:
    """The class of each pixel of each image, from logits that are resized to the file's image.

    Args:
        logits: (B, classes, H, W).
        sizes: (height, width) of the files' images.
        class_names: name of each output.
        top_k: classes in a table, at most.

    Raises:
        NumericalError: logits that are not finite.
    """
    refuse_broken(int((~logits.isfinite()).flatten(1).any(1).sum()), len(logits))
    return [
        Segments(best_labels(one.float(), size).cpu().numpy(), tuple(class_names), top_k)
        for one, size in zip(logits, sizes, strict=True)
    ]


@contextlib.contextmanager
def label_folder(folder: Path, class_names: Sequence[str]) -> Iterator[Callable[[str, Segments], None]]:
    """Write a PNG file of labels for each image: value k is class k, and a palette shows it in the overlay's color.

    A file is named like its image, with a number behind the name where an earlier image had the same one.
    """
    palette = [channel for k in range(len(class_names)) for channel in color_of(k)]
    folder.mkdir(parents=True, exist_ok=True)
    count: Counter[str] = Counter()

    def add(image: str, found: Segments) -> None:
        stem = Path(image).stem
        count[stem] += 1
        name = stem if count[stem] == 1 else f"{stem}-{count[stem]}"
        labels = Image.fromarray(found.labels)
        labels.putpalette(palette)
        with atomic_write(folder / f"{name}.png") as file:
            labels.save(file, format="PNG")

    yield add


SEGMENTATION = Task(
    name="segmentation",
    samples=IMAGES_AND_MASKS,
    build=segmenter,
    decoders={"semantic_fpn": segmenter, "upernet": functools.partial(segmenter, decoder=UPerNet)},
    loss=pixel_cross_entropy,
    loss_name="cross entropy",
    meter=OverlapMeter,
    metrics=(
        Metric("miou", field="mean_iou", label="mIoU", unit="%"),
        Metric("pixel_accuracy", field="pixel_accuracy", label="pixel accuracy", unit="%", brief=False),
    ),
    decode=segments,
    columns=("class", "area"),
    writers={"labels": label_folder},
    infer=Inference(),
    inference=Inference,
)
