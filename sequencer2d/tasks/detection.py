"""Detection: a box around each object, with its class."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sequencer2d import dense
from sequencer2d.data.detection import IMAGES_AND_BOXES
from sequencer2d.files import atomic_write
from sequencer2d.tasks.average_precision import PrecisionMeter, as_bbox, in_file
from sequencer2d.tasks.backbone import backbone_of_strides
from sequencer2d.tasks.drawing import with_boxes
from sequencer2d.tasks.finite import refuse_broken
from sequencer2d.tasks.segmentation import color_of
from sequencer2d.tasks.task import Forward, Metric, Task

STRIDES = {"retinanet": (8, 16, 32), "fcos": (8, 16, 32), "faster_rcnn": (4, 8, 16, 32)}
"""Detectors of `dense`, and the strides of the maps below their pyramids, as in mmdetection."""


@dataclass(frozen=True)
class Objects:
    """The objects in an image, the highest score first; a `Finding`."""

    size: tuple[int, int]
    """(height, width) of the file's image."""
    boxes: np.ndarray
    """float32 (N, 4): left, top, right, bottom, in pixels of the file's image."""
    scores: np.ndarray
    """float32 (N,), 0 to 1."""
    labels: np.ndarray
    """int64 (N,) numbers of classes."""
    names: tuple[str, ...]
    """Name of every class."""

    def above(self, threshold: float) -> "Objects":
        """The objects of at least this score."""
        kept = self.scores >= threshold
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; boxes are left, top, width, height, as in COCO's format."""
        return {
            "objects": [
                {"name": self.names[k], "index": int(k), "score": float(score), "box": as_bbox(box)}
                for box, score, k in zip(self.boxes, self.scores, self.labels, strict=True)
            ]
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, score and box of each object."""
        return [
            (self.names[k], f"{score:7.2%}", " ".join(f"{side:.0f}" for side in as_bbox(box)))
            for box, score, k in zip(self.boxes, self.scores, self.labels, strict=True)
        ]

    def draw(self, image: Image.Image) -> Image.Image:
        """The image with a colored box for each object, and its class and score where there is room for them."""
        return with_boxes(
            image,
            self.boxes.tolist(),
            [self.names[k] for k in self.labels],
            [f"{score:.0%}" for score in self.scores],
            [color_of(k) for k in self.labels],
        )


def detector(name: str) -> Callable[[Callable[..., nn.Module], int], nn.Module]:
    """A function that builds the detector `name` of `dense` on maps of its strides."""

    def build(create: Callable[..., nn.Module], outputs: int) -> nn.Module:
        made: nn.Module = getattr(dense, name)(backbone_of_strides(create, STRIDES[name]), outputs)
        return made

    return build


def sum_of_losses(forward: Forward, images: Tensor, targets: Any, label_smoothing: float) -> Tensor:
    """The sum of the detector's losses, computed in float32.

    Args:
        forward: (images, targets) → dictionary of losses.
        images: normalized (B, 3, H, W).
        targets: of `data.detection`.
        label_smoothing: is not used; focal loss has its own balance.
    """
    losses = list(forward(images, targets).values())
    return torch.stack([loss.float() for loss in losses]).sum()


def objects(
    outputs: list[dict[str, Tensor]], sizes: Sequence[tuple[int, int]], class_names: Sequence[str], top_k: int
) -> list[Objects]:
    """The objects of each image.

    Args:
        outputs: of `dense.Detector`, the highest score first.
        sizes: (height, width) of the files' images, to which boxes are scaled.
        class_names: name of each output.
        top_k: objects per image, at most.

    Raises:
        NumericalError: outputs of the detector's head that are not finite.
    """
    refuse_broken(sum(not bool(one["finite"]) for one in outputs), len(outputs))
    return [
        Objects(
            size=size,
            boxes=in_file(one, size)[:top_k],
            scores=one["scores"].float().cpu().numpy()[:top_k],
            labels=one["labels"].cpu().numpy()[:top_k],
            names=tuple(class_names),
        )
        for one, size in zip(outputs, sizes, strict=True)
    ]


def with_targets(forward: Forward, images: Tensor, targets: Any) -> Any:
    """The boxes in images. The targets give the size that each image takes in the batch."""
    return forward(images, targets)


@contextlib.contextmanager
def coco_file(path: Path, class_names: Sequence[str]) -> Iterator[Callable[[str, Objects], None]]:
    """Write predictions as a data set in COCO's format, each annotation with its `score`: to look at or to correct.

    The file is written whole at the end, or not at all. Raises `OSError` at once where it cannot be written.
    """
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": k + 1, "name": name} for k, name in enumerate(class_names)]

    def add(image: str, found: Objects) -> None:
        number = len(content["images"]) + 1
        height, width = found.size
        content["images"].append({"id": number, "file_name": image, "height": height, "width": width})
        for box, score, k in zip(found.boxes, found.scores, found.labels, strict=True):
            bbox = as_bbox(box)
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": int(k) + 1, "bbox": bbox,
                 "area": bbox[2] * bbox[3], "iscrowd": 0, "score": float(score)}
            )  # fmt: skip

    with atomic_write(path, "w") as file:
        yield add
        json.dump(content, file)


DETECTION = Task(
    name="detection",
    samples=IMAGES_AND_BOXES,
    build=detector("retinanet"),
    decoders={name: detector(name) for name in STRIDES},
    loss=sum_of_losses,
    loss_name="loss",
    infer=with_targets,
    meter=PrecisionMeter,
    metrics=(
        Metric("ap", field="ap", label="AP", unit="%"),
        Metric("ap50", field="ap50", label="AP50", unit="%"),
        Metric("ap75", field="ap75", label="AP75", unit="%", brief=False),
    ),
    decode=objects,
    columns=("class", "score", "left top width height"),
    top_k=100,
    threshold=0.5,
    writers={"coco": coco_file},
)
