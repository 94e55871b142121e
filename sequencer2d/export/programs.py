"""From a model to what each compiler takes: a `torch.export` program with dynamic batch, height and width."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from sequencer2d.export.loop import Loop
from sequencer2d.export.mixers import Axes, OneDNN, OnnxLayer, Operator, with_constant_weights
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import CELLS

Recurrence = Callable[[RNN2D], nn.Module]


def native(mixer: RNN2D) -> nn.Module:
    """For C++ without this package: oneDNN's function if libtorch has it for the cell, otherwise a loop."""
    return Axes(mixer, Loop if CELLS[mixer.cell].onednn_mode is None else OneDNN)


RECURRENCES: dict[str, Recurrence] = {
    "torch": Operator,
    "aoti": native,
    "onnx": partial(Axes, kind=OnnxLayer),
}


class Images(nn.Module):
    """The model under the input name `images` and the output name `logits`, whatever its own are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def trace(model: nn.Module, recurrence: str, *, in_chans: int, size: tuple[int, int]) -> ExportedProgram:
    """Trace images (B, in_chans, H, W) → logits, dynamic in B, H and W.

    Args:
        model: in the dtype and on the device that it shall run in.
        recurrence: a key of `RECURRENCES`.
        in_chans: channels of the images.
        size: height and width (pixels) of the image traced with; more than the model's stride.
    """
    wrapped = Images(with_constant_weights(model, RECURRENCES[recurrence])).eval()
    like = next(model.parameters())
    images = torch.zeros(2, in_chans, *size, dtype=like.dtype, device=like.device)
    shapes = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC},)
    with torch.no_grad(), quiet():
        return torch.export.export(wrapped, (images,), dynamic_shapes=shapes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out the warnings by which torch's exporters speak to their own developers."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def hushed(*names: str) -> Iterator[None]:
    """Only errors from these loggers ("" is the root): exporters report their passes as warnings."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
