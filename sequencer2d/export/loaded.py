"""Exported models in place of modules: what a runtime computes, with the shapes that are promised."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import CheckpointError, InputError
from sequencer2d.input_spec import InputSpec

Run = Callable[[Tensor], list[Tensor]]
"""Images → the outputs of the file, in its order."""


class Artifact(nn.Module):
    """An exported model: images (B, in_chans, H, W), fp32, normalized → logits (B, classes), fp32, on the CPU.

    Attributes:
        path: its file.
        meta: what it says of itself: a checkpoint's `meta` and the entry `artifact`.
        task: what it was trained for.
        kind: "torch", "aoti", "onnx", "openvino" or "web".
        precision: "fp32", "bf16" or "int8".
        num_classes: outputs.
        in_chans: channels of the images.
        pretrained_cfg: how images are prepared, and the names of the classes, as a model's.

    Raises:
        InputError: images of another shape, or smaller than it takes.
    """

    def __init__(self, path: Path, meta: dict[str, Any], run: Run) -> None:
        super().__init__()
        self.path, self.meta, self._run = path, meta, run
        self.task: str = meta.get("task", "classification")
        self.kind: str = meta["artifact"]["kind"]
        self.precision: str = meta["artifact"]["precision"]
        self.num_classes: int = meta["num_classes"]
        self.in_chans: int = meta["in_chans"]
        spec = InputSpec(in_chans=self.in_chans).with_classes(meta).updated(meta)
        self.pretrained_cfg = {**spec.to_timm(), "num_classes": self.num_classes}

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        logits = self._outputs(images)[0]
        expected = (len(images), self.num_classes)
        if tuple(logits.shape) != expected:
            raise CheckpointError(
                f"{self.path} gives outputs of shape {tuple(logits.shape)}, and describes {expected}: export it again"
            )
        return logits

    def _outputs(self, images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self._run(images.detach().float().cpu().contiguous())

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_chans:
            raise InputError(
                f"images have shape {tuple(images.shape)}; {self.path.name} takes "
                f"(batch, {self.in_chans}, height, width)"
            )
        least = self.meta["artifact"]["minimum_size"]
        if min(images.shape[2:]) < least:
            raise InputError(
                f"images of {images.shape[2]}×{images.shape[3]} pixels are too small; {self.path.name} takes "
                f"{least}×{least} or more, which make two tokens along each axis: enlarge them"
            )

    def extra_repr(self) -> str:
        return f"{self.path.name}, {self.kind}, {self.precision}"


class SegmenterArtifact(Artifact):
    """An exported segmenter: images (B, in_chans, H, W), fp32, normalized → logits (B, classes, H, W), fp32."""

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        (logits,) = self._outputs(images)
        return logits


class DetectorArtifact(Artifact):
    """An exported detector: normalized images of any size → the boxes in each, as of `dense.Detector`.

    The file takes one image of a fixed size. An image that is larger is reduced to it with its proportions, and filled
    up with zeros, the mean color, on the right and below.
    """

    def forward(  # type: ignore[override]
        self, images: Tensor, targets: Any = None
    ) -> list[dict[str, Tensor]]:
        self._check(images)
        return [self._found(image[None]) for image in images]

    @property
    def only_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the image that the file takes."""
        height, width = self.pretrained_cfg["input_size"][-2:]
        return height, width

    def _found(self, image: Tensor) -> dict[str, Tensor]:
        (height, width), (rows, columns) = self.only_size, image.shape[-2:]
        factor = min(1.0, height / rows, width / columns)
        reduced = (min(height, round(rows * factor)), min(width, round(columns * factor)))
        if factor < 1:
            image = F.interpolate(image, [max(1, side) for side in reduced], mode="bilinear", antialias=True)
        padded = F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
        boxes, scores, labels = self._outputs(padded)
        within = boxes.new_tensor([image.shape[-1], image.shape[-2]] * 2)
        finite = torch.tensor(bool(scores.isfinite().all() and boxes.isfinite().all()))
        size = torch.tensor(image.shape[-2:])
        return {"boxes": boxes.minimum(within), "scores": scores, "labels": labels, "size": size, "finite": finite}
