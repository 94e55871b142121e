"""Classification: whole images, one class each."""

import torch.nn.functional as F
from torch import Tensor

from sequencer2d.data.samples import CLASS_NUMBERS
from sequencer2d.tasks.accuracy import AccuracyMeter
from sequencer2d.tasks.task import Forward, Metric, Task


def cross_entropy(forward: Forward, images: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Mean cross entropy in nats, computed in float32.

    Args:
        forward: images (B, 3, H, W) → logits (B, classes).
        images: normalized.
        targets: int64 (B,) numbers of classes, or float32 (B, classes) probabilities where images are mixed.
        label_smoothing: share of the target that is spread over all classes, 0 to <1.
    """
    return F.cross_entropy(forward(images).float(), targets, label_smoothing=label_smoothing)


CLASSIFICATION = Task(
    name="classification",
    samples=CLASS_NUMBERS,
    loss=cross_entropy,
    loss_name="cross entropy",
    meter=AccuracyMeter,
    metrics=(
        Metric("top1", field="top1", label="top-1", quantity="accuracy", unit="%"),
        Metric("top5", field="top5", label="top-5", quantity="accuracy", unit="%", brief=False),
        Metric("val_loss", field="cross_entropy", label="val loss", digits=4, higher_is_better=False),
    ),
)
