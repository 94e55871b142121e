"""Intersection over union and pixel accuracy of a segmentation; the same on any number of processes."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sequencer2d.data.labels import IGNORED
from sequencer2d.errors import DataError
from sequencer2d.tasks.finite import refuse_broken
from sequencer2d.tasks.pixelwise import best_labels
from sequencer2d.tasks.task import percentages


@dataclass(frozen=True)
class SegmentationResult:
    """What an evaluation of a segmentation measures, in percent, 0 to 100. Ignored pixels do not count."""

    mean_iou: float
    """Mean of `per_class`, without the classes that have none."""
    pixel_accuracy: float
    """Share of the pixels whose class has the highest logit."""
    per_class: tuple[float | None, ...]
    """Intersection over union of each class: pixels that are labeled and predicted as the class, of those that are one
    or the other. None for a class without pixels: neither labeled nor predicted anywhere."""
    class_names: tuple[str, ...]
    count: int
    """Images evaluated."""
    broken: int
    """Images that could not be read, or whose mask could not, and are left out."""
    confusion: tuple[tuple[int, ...], ...]
    """Pixels by label and prediction: a row for each class, with the number that was predicted as each class."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(name, value with its unit) of each number."""
        return [("mIoU", f"{self.mean_iou:.2f} %"), ("pixel accuracy", f"{self.pixel_accuracy:.2f} %")]

    def class_rows(self) -> list[tuple[str, str]]:
        """(name, intersection over union, and the class that its pixels are most often taken for) of each class."""
        shown = percentages(self.class_names, self.per_class, "none")
        return [(name, f"{value}{self._taken_for(k)}") for k, (name, value) in enumerate(shown)]

    def _taken_for(self, number: int) -> str:
        row = self.confusion[number]
        wrong, other = max((pixels, k) for k, pixels in enumerate(row) if k != number)
        return f"  ({100 * wrong / sum(row):.0f} % taken for {self.class_names[other]})" if wrong else ""


@dataclass(frozen=True)
class Counts:
    """What one process counted."""

    confusion: np.ndarray
    """int64 (classes, classes): pixels by label and prediction."""
    images: int
    not_finite: int
    """Images for which some output is NaN or infinite."""


class OverlapMeter:
    """Counts pixels by label and prediction; a `Meter`.

    Args:
        class_names: name of each output.
        outputs: int64 (classes of the data,), the output of each class; None: class 0 is output 0, and so on.
    """

    def __init__(self, class_names: Sequence[str], outputs: np.ndarray | None = None) -> None:
        self.class_names = tuple(class_names)
        classes = len(self.class_names)
        numbers = torch.arange(classes) if outputs is None else torch.from_numpy(outputs)
        self._output_of_label = torch.full((IGNORED + 1,), IGNORED)
        self._output_of_label[: len(numbers)] = numbers
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self._images = self._not_finite = 0

    def add(self, outputs: Tensor | list[Tensor], targets: Tensor | list[dict[str, Tensor]]) -> None:
        """Take logits (B, classes, H, W) and int64 labels (B, H, W). Raises `DataError` for other shapes.

        Or a list of each: logits (classes, h, w), which are resized to the size of the labels, and dictionaries with
        int64 `labels` (H, W).
        """
        classes = len(self.class_names)
        if isinstance(targets, list):
            for logits, target in zip(outputs, targets, strict=True):
                labels = target["labels"]
                if len(logits) != classes:
                    raise DataError(_other_classes(tuple(logits.shape), classes, (classes, *logits.shape[1:])))
                self._count(best_labels(logits.float(), labels.shape), labels)
                self._not_finite += int(not logits.isfinite().all())
                self._images += 1
            return
        assert isinstance(outputs, Tensor)
        expected = (len(targets), classes, *targets.shape[1:])
        if outputs.shape != expected:
            raise DataError(_other_classes(tuple(outputs.shape), classes, expected))
        self._count(outputs.argmax(1), targets)
        self._not_finite += int((~outputs.isfinite()).flatten(1).any(1).sum())
        self._images += len(targets)

    def _count(self, found: Tensor, targets: Tensor) -> None:
        classes = len(self.class_names)
        labels = self._output_of_label.to(targets.device)[targets]
        scored = labels != IGNORED
        pairs = labels[scored] * classes + found[scored]
        self._confusion += pairs.bincount(minlength=classes * classes).view(classes, classes).cpu()

    def state(self) -> Counts:
        """What was counted."""
        return Counts(self._confusion.numpy(), self._images, self._not_finite)

    def result(self, states: Sequence[Counts], broken: int) -> SegmentationResult:
        """The result of all images.

        Raises:
            DataError: no images, or none with a pixel that is not ignored.
            NumericalError: outputs that are not finite.
        """
        images = sum(state.images for state in states)
        refuse_broken(sum(state.not_finite for state in states), images)
        if not images:
            raise DataError(
                f"no images to evaluate ({broken} could not be read)" if broken else "no images to evaluate"
            )
        confusion = sum(state.confusion for state in states)
        if not np.any(confusion):
            raise DataError(f"every pixel of the {images} masks is ignored: there is nothing to measure")
        return summarize(np.asarray(confusion), self.class_names, images=images, broken=broken)


def _other_classes(shape: tuple[int, ...], classes: int, expected: tuple[int, ...]) -> str:
    return (
        f"the model's output has shape {shape}; masks of {classes} classes need {expected}: "
        "evaluate on the data the model was made for"
    )


def summarize(
    confusion: np.ndarray, class_names: tuple[str, ...], *, images: int, broken: int = 0
) -> SegmentationResult:
    """The result of a confusion matrix, int64 (classes, classes), label by prediction, of at least one pixel."""
    right = confusion.diagonal()
    either = confusion.sum(0) + confusion.sum(1) - right
    per_class = tuple(100 * int(r) / int(n) if n else None for r, n in zip(right, either, strict=True))
    present = [iou for iou in per_class if iou is not None]
    return SegmentationResult(
        mean_iou=math.fsum(present) / len(present),
        pixel_accuracy=100 * int(right.sum()) / int(confusion.sum()),
        per_class=per_class,
        class_names=class_names,
        count=images,
        broken=broken,
        confusion=tuple(map(tuple, confusion.tolist())),
    )
