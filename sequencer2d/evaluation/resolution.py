"""Resolution adaptability (the paper's Figure 3 a, b): accuracy at other sizes than the model was trained for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from sequencer2d.data.sources import Source
from sequencer2d.errors import ConfigError, InputError, UserError, first_line
from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
from sequencer2d.evaluation.pixels import Progress, choose, match_classes, read_batches
from sequencer2d.evaluation.subject import Subject
from sequencer2d.tasks.accuracy import concatenate


@dataclass(frozen=True)
class ResolutionResult:
    """Accuracy over input sizes, without fine-tuning.

    Attributes:
        model: its name.
        native: side in pixels that it was trained for.
        sizes: (K,) sides in pixels, ascending, native included.
        top1: (K,) accuracy, 0 to 1.
        refused: sizes that the model does not take, and why.
        count: images.
    """

    model: str
    native: int
    sizes: np.ndarray
    top1: np.ndarray
    count: int
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def relative(self) -> np.ndarray:
        """(K,) accuracy over that at the native size; nan where that is 0."""
        native = self.top1[list(self.sizes).index(self.native)]
        return self.top1 / native if native > 0 else np.full_like(self.top1, np.nan)


def default_sizes(subject: Subject) -> tuple[int, ...]:
    """From half to double the native size, in steps that avoid padding.

    At 224 pixels these are 28 for strides that divide by 7 (the paper's Sequencers) and 32 for others, as in the paper;
    at other sizes an eighth of the native size, rounded to the stride.
    """
    native, stride = subject.data.size[0], model_stride(subject.model)
    ideal = (28 if stride % 7 == 0 else 32) * native / 224
    step = max(1, round(ideal / stride)) * stride
    below = range(native, (native - 1) // 2, -step)
    above = range(native + step, 2 * native + 1, step)
    return tuple(sorted([*below, *above]))


def model_stride(model: nn.Module) -> int:
    """Pixels per token of a model's last map; 32 if it does not say."""
    config: Any = getattr(model, "config", None)
    if hasattr(config, "total_stride"):
        return int(config.total_stride)
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    info = getattr(model, "feature_info", None)
    if info:
        last = info[-1] if isinstance(info, list) else info.info[-1]
        return int(last.get("reduction", 32))
    return int(patch[0] if isinstance(patch, tuple) else patch or 32)


def resolution_sweep(
    subject: Subject,
    source: Source,
    sizes: Sequence[int] | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    common_only: bool = False,
    progress: Progress | None = None,
) -> ResolutionResult:
    """Top-1 accuracy at several input sizes.

    Images are resized and cropped for each size as the model's evaluation does for its own (same share of the image). A
    model made for one size is resized by timm's `set_input_size` (position embeddings are interpolated) where it has
    that.

    Args:
        subject: any classifier.
        source: images with labels.
        sizes: sides in pixels; by default `default_sizes`. The native size is added.
        limit: at most so many images, a random sample.
        seed: of the sample.
        batch_size: images in one pass through the model.
        common_only: leave out classes of the data that the model does not have, instead of refusing them.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: a size that is not positive, classes that do not match, or a model that takes its own size only.
        DataError: an image that cannot be read.
    """
    native = subject.data.size[0]
    wanted = sorted({*(sizes or default_sizes(subject)), native})
    if wanted[0] < 1:
        raise ConfigError(f"size {wanted[0]}: expected positive numbers of pixels")
    classes = match_classes(subject, source, common_only=common_only)
    indices = choose(len(source), limit, seed)
    accuracy: dict[int, float] = {}
    refused: dict[int, str] = {}
    for size in wanted:
        try:
            resized = subject.adapted(size)
            accuracy[size] = _accuracy(resized, source, classes, indices, batch_size, progress)
        except (InputError, AssertionError, RuntimeError, ValueError) as error:
            if size == native or (isinstance(error, UserError) and not isinstance(error, InputError)):
                raise
            refused[size] = first_line(error)
            if progress:  # the first batch is refused: the images of this size are done with
                progress(len(indices))
    taken = np.asarray(sorted(accuracy))
    return ResolutionResult(
        subject.name, native, taken, np.asarray([accuracy[size] for size in taken]), len(indices), refused
    )


def _accuracy(
    subject: Subject,
    source: Source,
    classes: np.ndarray,
    indices: np.ndarray,
    batch_size: int,
    progress: Progress | None,
) -> float:
    parts = []
    for batch in read_batches(source, subject.data, batch_size=batch_size, indices=indices):
        targets = classes[batch.targets]
        parts.append(outcomes_of(logits_of(subject, batch.pixels[targets >= 0]), targets[targets >= 0]))
        if progress:
            progress(len(targets))
    outcomes = concatenate(parts)
    return float((outcomes.predictions == outcomes.targets).mean())
