"""A workload: a model on its device with one batch of random images, under a mode and a precision."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sequencer2d.precisions import PRECISIONS, dtype_of

MODES = ("inference", "training")
DTYPES = {name: dtype_of(name) for name in PRECISIONS}
CLASSES = 1000

Forward = Callable[[Tensor], Tensor]


@dataclasses.dataclass
class Workload:
    """A model on its device, and one batch of random images and labels.

    Attributes:
        model: in eval mode with weights in `dtype`, or in training mode with fp32 weights.
        mode: "inference" or "training".
        dtype: of the weights and images in inference, of autocast in training.
        images: (B, 3, size, size); fp32 in training.
        targets: (B,) class indices.
    """

    model: nn.Module
    mode: str
    dtype: torch.dtype
    images: Tensor
    targets: Tensor

    @property
    def device(self) -> torch.device:
        return self.images.device

    @functools.cached_property
    def compiled(self) -> Forward:
        """The model through torch.compile, specialized to the shape of the images; shared by the forms."""
        return torch.compile(self.model, dynamic=False)

    def autocast(self) -> torch.autocast:
        """Autocast for training.

        Its cache of weights is off: a CUDA graph must not meet it, and a step casts each weight only once anyway.
        """
        enabled = self.mode == "training" and self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled, cache_enabled=False)


def make_workload(
    model: nn.Module,
    mode: str,
    dtype: torch.dtype,
    batch: int,
    size: int,
    device: torch.device,
    *,
    layout: torch.memory_format = torch.channels_last,
) -> Workload:
    """Move `model` to the device, in the memory layout and the dtype of the mode, and draw a batch for it.

    Weights and images are rounded to `dtype` in training too, so that a check against fp64 sees the error of the
    arithmetic and not the rounding of its inputs.
    """
    training = mode == "training"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
    weights = torch.float32 if training else dtype
    model = model.to(device=device, dtype=weights).to(memory_format=layout).train(training)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).to(dtype)
    images = images.to(device=device, dtype=weights, memory_format=layout)
    targets = torch.randint(CLASSES, (batch,), generator=generator).to(device)
    return Workload(model, mode, dtype, images, targets)
