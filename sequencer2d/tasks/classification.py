"""Classification: whole images, one class each."""

import contextlib
import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sequencer2d.data.samples import CLASS_NUMBERS
from sequencer2d.files import atomic_write
from sequencer2d.tasks.accuracy import AccuracyMeter
from sequencer2d.tasks.drawing import with_caption
from sequencer2d.tasks.finite import require_probabilities
from sequencer2d.tasks.task import Forward, Metric, Task
from sequencer2d.terminal import printable


@dataclass(frozen=True)
class Guess:
    """One class and its probability (0 to 1)."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Guesses:
    """The classes that an image may be of, the most probable first; a `Finding`."""

    guesses: tuple[Guess, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Name and probability of each class."""
        return [(guess.name, f"{guess.probability:7.2%}") for guess in self.guesses]

    def above(self, threshold: float) -> "Guesses":
        """The classes of at least this probability."""
        return Guesses(tuple(guess for guess in self.guesses if guess.probability >= threshold))

    def draw(self, image: Image.Image) -> Image.Image:
        """The image with a line for each class below it."""
        return with_caption(image, [f"{guess.probability:.1%}  {guess.name}" for guess in self.guesses])


def cross_entropy(
    forward: Forward,
    images: Tensor,
    targets: Tensor,
    label_smoothing: float,
    *,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy in nats, computed in float32.

    Args:
        forward: images (B, 3, H, W) → logits (B, classes).
        images: normalized.
        targets: int64 (B,) numbers of classes, or float32 (B, classes) probabilities where images are mixed.
        label_smoothing: share of the target that is spread over all classes, 0 to <1.
        class_weights: float32 (classes,), a factor on the loss of each class; none: all count the same.
    """
    logits = forward(images).float()
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    # torch's mean would divide by the batch's sum of weights, so that an image counted differently in each batch.
    losses = F.cross_entropy(logits, targets, class_weights, label_smoothing=label_smoothing, reduction="none")
    return losses.mean()


def best_guesses(
    logits: Tensor, sizes: Sequence[tuple[int, int]], class_names: Sequence[str], top_k: int
) -> list[Guesses]:
    """The most probable classes of each image.

    Args:
        logits: (B, classes).
        sizes: of the images, which do not matter.
        class_names: name of each output.
        top_k: classes per image, at most.

    Raises:
        NumericalError: logits that are not finite.
    """
    probabilities = require_probabilities(logits.float()).softmax(dim=1).cpu()
    best = probabilities.topk(min(top_k, probabilities.shape[1]))
    return [
        Guesses(tuple(Guess(index, class_names[index], value) for index, value in zip(indices, values, strict=True)))
        for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@contextlib.contextmanager
def csv_file(path: Path, class_names: Sequence[str]) -> Iterator[Callable[[str, Guesses], None]]:
    """Write predictions as a table: path, rank from 1, number and name of the class, probability 0 to 1.

    The file is written whole at the end, or not at all. Raises `OSError` at once where it cannot be written.
    """
    with atomic_write(path, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("path", "rank", "index", "class", "probability"))

        def add(image: str, found: Guesses) -> None:
            for rank, guess in enumerate(found.guesses, start=1):
                row = (printable(image), rank, guess.index, printable(guess.name), f"{guess.probability:.6f}")
                table.writerow(row)

        yield add


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
    decode=best_guesses,
    columns=("class", "probability"),
    writers={"csv": csv_file},
)
