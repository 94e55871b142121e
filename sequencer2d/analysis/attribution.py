"""Which part of an image speaks for a class: Grad-CAM (Selvaraju et al. 2017), by the library grad-cam."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.blocks import block_names, find_block
from sequencer2d.analysis.layout import find_layout
from sequencer2d.errors import ConfigError, UserError, how_to_install
from sequencer2d.evaluation.modes import eval_mode, vendor_rnn_backward
from sequencer2d.evaluation.pixels import normalized
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks.finite import require_probabilities


@dataclass(frozen=True)
class Attribution:
    """Grad-CAM of some images.

    Attributes:
        model: its name.
        block: name of the block whose output the maps are made of.
        maps: (N, H, W) float32 between 0 and 1: how much a pixel speaks for the class.
        pixels: (N, H, W, 3) uint8, the images.
        classes: (N,) the class that the maps speak for.
        probabilities: (N,) its probability.
        predictions: (N,) the most probable class.
        confidences: (N,) its probability.
        truths: (N,) the class that is right, -1 where nobody knows; None if that is so for all.
    """

    model: str
    block: str
    maps: np.ndarray
    pixels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray
    truths: np.ndarray | None = None

    @property
    def asked(self) -> bool:
        """Whether the maps speak for another class than the predicted one."""
        return bool((self.classes != self.predictions).any())

    def mistakes_first(self) -> list[int]:
        """The images' numbers: known mistakes first, the most confident ones ahead; the others in their order."""
        if self.truths is None:
            return list(range(len(self.maps)))
        wrong = (self.truths >= 0) & (self.truths != self.predictions)
        return sorted(range(len(self.maps)), key=lambda n: -self.confidences[n] if wrong[n] else 1.0)

    def save(self, path: str | Path) -> None:
        """Write everything as `.npz`."""
        save_arrays(path, **{name: value for name, value in vars(self).items() if value is not None})


def grad_cam(
    subject: Subject,
    pixels: np.ndarray,
    block: str | None = None,
    *,
    target: int | None = None,
    layout: str | None = None,
    truths: np.ndarray | None = None,
) -> Attribution:
    """Grad-CAM of images at a block.

    Args:
        subject: a classifier.
        pixels: uint8 (N, H, W, 3).
        block: by default the last one.
        target: the class to explain; by default each image's most probable one.
        layout: of the block's output, where it cannot be found.
        truths: (N,) the model's output that is right for each image, -1 where nobody knows.

    Raises:
        ConfigError: no such block or class, or a layout that is unknown or wrong.
        UserError: grad-cam is not installed.
    """
    cam_class, output_target = _library()
    name = block or block_names(subject.model)[-1]
    module = find_block(subject.model, name)
    if target is not None and not 0 <= target < len(subject.class_names):
        raise ConfigError(f"no class {target}: {subject.name} has classes 0 to {len(subject.class_names) - 1}")
    reader = find_layout(subject.model, name, (pixels.shape[1], pixels.shape[2]), stated=layout)

    def to_nchw(output: Tensor) -> Tensor:
        return reader.to_grid(output).permute(0, 3, 1, 2)

    images = normalized(pixels, subject)
    with torch.no_grad(), eval_mode(subject.model):
        probabilities = require_probabilities(subject.model(images)).softmax(dim=1)
    confidences, predictions = probabilities.cpu().max(dim=1)
    classes = probabilities.argmax(dim=1) if target is None else torch.full((len(pixels),), target)
    with (
        eval_mode(subject.model),
        torch.enable_grad(),
        vendor_rnn_backward(subject.model),
        cam_class(model=subject.model, target_layers=[module], reshape_transform=to_nchw) as cam,
    ):
        maps = cam(input_tensor=images, targets=[output_target(int(c)) for c in classes])
    chosen = probabilities.cpu()[torch.arange(len(pixels)), classes.cpu()]
    return Attribution(
        subject.name, name, np.asarray(maps, dtype=np.float32), pixels, classes.cpu().numpy(), chosen.numpy(),
        predictions.numpy(), confidences.numpy(), truths if truths is not None and (truths >= 0).any() else None,
    )  # fmt: skip


def _library():  # type: ignore[no-untyped-def]
    try:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    except ImportError as error:
        raise UserError(f"Grad-CAM needs the library grad-cam: {how_to_install('analysis')} ({error})") from error
    return GradCAM, ClassifierOutputTarget
