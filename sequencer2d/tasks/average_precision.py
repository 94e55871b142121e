"""COCO's average precision of boxes, by faster-coco-eval; the same on any number of processes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from sequencer2d.errors import DataError
from sequencer2d.tasks.finite import refuse_broken
from sequencer2d.tasks.task import percentages

_NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
_LABELS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")


@dataclass(frozen=True)
class DetectionResult:
    """What an evaluation of a detector measures: percentages, 0 to 100, with at most 100 boxes an image."""

    ap: float
    """Mean over the classes and over the thresholds of IoU 0.50, 0.55, … 0.95."""
    ap50: float
    ap75: float
    ap_small: float | None
    """Of objects below 32² pixels; None without such objects."""
    ap_medium: float | None
    ap_large: float | None
    """Of objects from 96² pixels on."""
    per_class: tuple[float | None, ...]
    """AP of each class; None for a class without boxes."""
    class_names: tuple[str, ...]
    count: int
    """Images evaluated."""
    broken: int
    """Images that could not be read and are left out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """(name, value with its unit) of each number."""
        return percentages(_LABELS, [getattr(self, name) for name in _NAMES], "none")

    def class_rows(self) -> list[tuple[str, str]]:
        """(name, AP) of each class."""
        return percentages(self.class_names, self.per_class, "no boxes")


@dataclass(frozen=True)
class Compared:
    """The boxes of one image, in pixels of its file: left, top, right, bottom."""

    number: int
    size: tuple[int, int]
    found: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    true: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    area: np.ndarray
    finite: bool


class PrecisionMeter:
    """Collects found and true boxes of each image; a `Meter`.

    Args:
        class_names: name of each output.
        outputs: int64 (classes of the data,), the output of each class; None: class 0 is output 0, and so on.
    """

    def __init__(self, class_names: Sequence[str], outputs: np.ndarray | None = None) -> None:
        self.class_names = tuple(class_names)
        self._outputs = np.arange(len(self.class_names)) if outputs is None else outputs
        self._images: list[Compared] = []

    def add(self, outputs: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> None:
        """Take what `dense.Detector` found and the targets of `data.detection`."""
        for found, target in zip(outputs, targets, strict=True):
            true = {name: value.cpu().numpy() for name, value in target.items()}
            height, width = true["file_size"].tolist()
            self._images.append(
                Compared(
                    number=int(true["id"]),
                    size=(height, width),
                    found=in_file(found, (height, width)),
                    scores=found["scores"].float().cpu().numpy(),
                    labels=found["labels"].cpu().numpy(),
                    true=true["file_boxes"],
                    true_labels=self._outputs[true["labels"]],
                    crowd=true["crowd"],
                    area=true["area"],
                    finite=bool(found["finite"]),
                )
            )

    def state(self) -> list[Compared]:
        """The boxes of each image."""
        return self._images

    def result(self, states: Sequence[list[Compared]], broken: int) -> DetectionResult:
        """The result of all images. Raises `DataError` without images, `NumericalError` for outputs that are NaN."""
        images = sorted((image for state in states for image in state), key=lambda image: image.number)
        if not images:
            raise DataError(f"no images to evaluate ({broken} could not be read)")
        refuse_broken(sum(not image.finite for image in images), len(images))
        stats, per_class = average_precision(images, len(self.class_names))
        named = dict(zip(_NAMES, stats, strict=True))
        for name in _NAMES[:3]:
            if named[name] is None:
                raise DataError("no image has a box that counts: there is nothing to measure")
        return DetectionResult(
            **named,  # type: ignore[arg-type]
            per_class=tuple(per_class),
            class_names=self.class_names,
            count=len(images),
            broken=broken,
        )


def in_file(found: dict[str, Tensor], file: tuple[int, int]) -> np.ndarray:
    """float32 (N, 4): found boxes in pixels of a file of (height, width), from those of the image that was resized."""
    boxes = found["boxes"].float().cpu().numpy()
    height, width = found["size"].tolist()
    return boxes * np.array([file[1] / width, file[0] / height] * 2, np.float32)


def as_coco(images: Sequence[Compared], classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The true boxes as a data set in COCO's format, and the found ones as its list of results."""
    truth: dict[str, Any] = {"info": {}, "images": [], "annotations": []}
    truth["categories"] = [{"id": k + 1} for k in range(classes)]
    results = []
    for number, image in enumerate(images, start=1):
        truth["images"].append({"id": number, "height": image.size[0], "width": image.size[1]})
        for box, label, crowd, area in zip(image.true, image.true_labels, image.crowd, image.area, strict=True):
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": number, "category_id": int(label) + 1,
                 "bbox": as_bbox(box), "area": float(area), "iscrowd": int(crowd)}
            )  # fmt: skip
        for box, label, score in zip(image.found, image.labels, image.scores, strict=True):
            results.append(
                {"image_id": number, "category_id": int(label) + 1, "bbox": as_bbox(box), "score": float(score)}
            )
    return truth, results


def average_precision(images: Sequence[Compared], classes: int) -> tuple[list[float | None], list[float | None]]:
    """The six AP of COCO in percent, in the order of its summary, and the AP of each class; None without boxes."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth, results = as_coco(images, classes)
    if not results:
        zero = np.zeros(4, np.float32)
        results = [{"image_id": 1, "category_id": 1, "bbox": as_bbox(zero), "score": 0.0}]
    reference = COCO(truth)
    evaluation = COCOeval_faster(reference, reference.loadRes(results), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [_mean(precision[:, :, k]) for k in range(classes)]
    return [None if value < 0 else 100 * float(value) for value in evaluation.stats[:6]], per_class


def as_bbox(box: np.ndarray) -> list[float]:
    """left, top, width, height of left, top, right, bottom."""
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]


def _mean(precision: np.ndarray) -> float | None:
    known = precision[precision > -1]
    return 100 * float(known.mean()) if known.size else None
