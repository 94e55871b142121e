"""One-stage detectors as ONNX: the boxes in one image of a fixed size."""

import copy
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image, nms

from sequencer2d.dense import Detector
from sequencer2d.errors import ConfigError, ExportError
from sequencer2d.export import verify
from sequencer2d.export.dense import check_target, session_of, to_proto, write_proto
from sequencer2d.export.exporting import Exported
from sequencer2d.export.metadata import describe_dense, to_strings
from sequencer2d.models.description import LARGEST_IMAGE

NAMES = ("boxes", "scores", "labels")
_COMPARED = ("every_box", "every_score")
"""Outputs that the file holds only while it is compared with the model."""


@dataclass(frozen=True)
class OneStage:
    """What differs between two detectors of torchvision without proposals.

    Attributes:
        scores: outputs of the head → (B, positions, classes), 0 to 1.
        decode: (the model, (positions, 4) regression, anchors) → (positions, 4) boxes in pixels.
    """

    scores: Callable[[Mapping[str, Tensor]], Tensor]
    decode: Callable[[Any, Tensor, Tensor], Tensor]


ONE_STAGE = {
    RetinaNet: OneStage(
        lambda head: head["cls_logits"].sigmoid(),
        lambda model, regression, anchors: model.box_coder.decode_single(regression, anchors),
    ),
    FCOS: OneStage(
        lambda head: (head["cls_logits"].sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt(),
        lambda model, regression, anchors: model.box_coder.decode(regression, anchors),
    ),
}


class Boxes(nn.Module):
    """What torchvision's detector does after its transform, in operations whose sizes do not depend on the image.

    torchvision drops low scores before it takes the best candidates, here they are dropped last: a lower score never
    suppresses a higher one, so the same boxes remain.

    Args:
        detector: a RetinaNet or FCOS of `sequencer2d.dense`; it is copied.
        size: (height, width) of the images, in pixels.

    `forward`: normalized images fp32 (1, C, H, W) → float32 (N, 4) boxes (left, top, right, bottom in pixels), float32
    (N,) scores, the highest first, int64 (N,) labels; then the boxes (P, 4) and scores (P, classes) of all positions.

    Raises:
        ExportError: a detector with proposals.
    """

    def __init__(self, detector: Detector, size: tuple[int, int]) -> None:
        super().__init__()
        model = copy.deepcopy(detector).float().cpu().eval().requires_grad_(False).model
        kind = next((row for own, row in ONE_STAGE.items() if isinstance(model, own)), None)
        if kind is None:
            raise ExportError(
                f"{type(model).__name__} is not exported: how many boxes its second stage looks at differs from image "
                "to image, which torch.export cannot follow; train model.decoder=retinanet or fcos"
            )
        model.head._forward_hooks.clear()  # they convert what autocast makes, and note what is not finite
        self.model, self.kind, self.size = model, kind, size
        self.in_chans: int = model.backbone.body.in_chans
        self.pretrained_cfg = getattr(detector, "pretrained_cfg", None) or model.backbone.body.pretrained_cfg
        divisor = model.backbone.size_divisible
        self.padding = (0, -size[1] % divisor, 0, -size[0] % divisor)
        with torch.no_grad():
            padded = F.pad(torch.zeros(1, self.in_chans, *size), self.padding)
            maps = list(model.backbone(padded).values())
            (anchors,) = model.anchor_generator(ImageList(padded, [size]), maps)
        pixels = [x.shape[2] * x.shape[3] for x in maps]
        self.lengths = [count * (len(anchors) // sum(pixels)) for count in pixels]
        self.register_buffer("anchors", anchors)
        self.anchors: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head = self.model.head(list(self.model.backbone(F.pad(images, self.padding)).values()))
        scores = self.kind.scores(head)[0]
        boxes = clip_boxes_to_image(self.kind.decode(self.model, head["bbox_regression"][0], self.anchors), self.size)
        return *self.select(boxes, scores), boxes, scores

    def select(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The boxes that remain of (P, 4) boxes and (P, classes) scores, with their scores and labels."""
        model, classes = self.model, scores.shape[1]
        best, places, start = [], [], 0
        for length in self.lengths:
            level = scores[start : start + length].flatten()
            found = level.topk(min(model.topk_candidates, length * classes))
            best.append(found.values)
            places.append(found.indices + start * classes)
            start += length
        best_scores, place = torch.cat(best), torch.cat(places)
        labels, candidates = place % classes, boxes[place // classes]
        apart = (labels * (max(self.size) + 1)).to(boxes.dtype)  # so that boxes of two classes never overlap
        kept = nms(candidates + apart[:, None], best_scores, model.nms_thresh)
        rank = torch.ones_like(kept).cumsum(0)
        kept = kept[(best_scores[kept] > model.score_thresh) & (rank <= model.detections_per_img)]
        return candidates[kept], best_scores[kept], labels[kept]


def export_detector(
    detector: nn.Module,
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    images: Sequence[str | os.PathLike[str]] | None = None,
) -> Exported:
    """Write a RetinaNet or FCOS of `sequencer2d.dense` as ONNX, after comparing it with the model.

    The input is `images`, normalized, fp32 (1, in_chans, height, width) of a fixed size: fit a photo into it with its
    proportions, in the upper left. The outputs are `boxes`, fp32 (N, 4): left, top, right, bottom in pixels of the
    input; `scores`, fp32 (N,), the highest first; and `labels`, int64 (N,). The metadata `mean`, `std`, `class_names`
    and `size` are JSON; `sequencer2d predict` takes the file in place of a run.

    Args:
        detector: it is not changed.
        path: of the file, with the suffix .onnx; its folder exists.
        size: (height, width) in pixels; by default the model's own.
        images: real image files to compare on; by default scikit-learn's photographs, if it is installed.

    Raises:
        ConfigError: another model, another suffix, or a size that is none.
        ExportError: a Faster R-CNN, or the file would differ from the model, or cannot be written. Nothing is left.
        UserError: a package that ONNX needs is not installed.
    """
    started, target = time.perf_counter(), check_target(path)
    if not isinstance(detector, Detector):
        raise ConfigError(f"{type(detector).__name__} is no detector of sequencer2d.dense")
    plain = Boxes(detector, _checked(size, detector))
    example = torch.zeros(1, plain.in_chans, *plain.size)
    with torch.no_grad():
        classes = plain(example)[-1].shape[1]
    described = to_strings(describe_dense("detection", plain.pretrained_cfg, classes, plain.size))
    proto = to_proto(plain, example, (*NAMES, *_COMPARED), {}, described)
    files = [Path(image) for image in images] if images is not None else verify.real_images()
    differences = _compare(proto, plain, files)
    del proto.graph.output[len(NAMES) :]
    for output in proto.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "objects"
    return write_proto(proto, target, differences, started)


def _checked(size: tuple[int, int] | None, detector: Any) -> tuple[int, int]:
    if size is None:
        stated = getattr(detector, "pretrained_cfg", None) or detector.model.backbone.body.pretrained_cfg
        size = tuple(stated["input_size"][-2:])
    if len(size) != 2 or not all(type(side) is int and 1 <= side <= LARGEST_IMAGE for side in size):
        raise ConfigError(f"size={size!r}: expected height and width in pixels, such as (384, 512)")
    return size


@torch.no_grad()
def _compare(proto: Any, plain: Boxes, files: Sequence[Path]) -> list[verify.Difference]:
    """The boxes and scores of all positions, and what remains of them: the runtime's against PyTorch's."""
    session = session_of(proto)
    generator = torch.Generator().manual_seed(0)
    inputs = [("random", torch.randn(1, plain.in_chans, *plain.size, generator=generator))]
    if files and plain.in_chans == 3:
        inputs += [("images", image[None]) for image in verify.read_images(plain, plain.size, files)]
    differences = []
    for source, image in inputs:
        found = [torch.from_numpy(np.asarray(x)) for x in session.run(None, {"images": image.numpy()})]
        every = plain(image)[len(NAMES) :]
        # What remains is a matter of thresholds: it is compared for the same candidates.
        remain = plain.select(*found[len(NAMES) :])
        pairs = [(_rows(found[: len(NAMES)]), _rows(remain)), *zip(found[len(NAMES) :], every, strict=True)]
        relative = max(verify.relative_difference(a, b) for a, b in pairs if len(a) or len(b))
        differences.append(verify.Difference(source, plain.size, 1, relative))
    return differences


def _rows(remain: Sequence[Tensor]) -> Tensor:
    """(N, 6): score, label and box, in an order that does not depend on how equal scores were sorted."""
    boxes, scores, labels = remain
    rows = torch.cat([scores[:, None], labels[:, None].to(scores), boxes], 1)
    return rows[np.lexsort(rows.T.numpy()[::-1]).copy()]
