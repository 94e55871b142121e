"""What a task is: one row that data, training, evaluation, prediction and the command line read.

Nothing outside this folder asks which task it is. What a task does differently stands in its row: a function that the
others call. CONTRIBUTING.md shows how to add one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor, nn

from sequencer2d.data.samples import Samples
from sequencer2d.errors import ConfigError, did_you_mean

Forward = Callable[..., Any]
"""The model as it is called: distributed, and under autocast if the run is in 16 bits."""


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation, as it is logged and shown."""

    key: str
    """Its name in `log.jsonl`, TensorBoard and `summary.json`. It is a contract: logs of earlier runs hold it."""
    field: str
    """Attribute of the task's result that holds it."""
    label: str
    """Its name for people."""
    quantity: str = ""
    """What is measured, for the axis of a figure; empty: the label."""
    unit: str = ""
    """"%" for percentages, which run from 0 to 100."""
    digits: int = 2
    """Decimal places that are shown."""
    higher_is_better: bool = True
    brief: bool = True
    """Whether the line that ends an epoch shows it."""

    def of(self, result: Any) -> float | None:
        """The number in a task's result; None if it is not finite."""
        value = float(getattr(result, self.field))  # a number of NumPy's is no plain value for checkpoints and logs
        return value if math.isfinite(value) else None

    def show(self, value: float | None) -> str:
        """The number with its unit, "98.50 %" for example."""
        if value is None:
            return "not finite"
        return f"{value:.{self.digits}f}" + (f" {self.unit}" if self.unit else "")

    def improves(self, value: float | None, best: float | None) -> bool:
        """Whether `value` is better than `best`; a number that is not finite never is."""
        if value is None or best is None:
            return value is not None
        return value > best if self.higher_is_better else value < best

    @property
    def axis(self) -> str:
        """The label of an axis for this number."""
        quantity = self.quantity or self.label
        return f"{quantity}, {self.unit}" if self.unit else quantity


class Result(Protocol):
    """What an evaluation gives: the numbers that `Task.metrics` name, and these."""

    count: int
    """Images evaluated."""
    broken: int
    """Images that could not be read and are left out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a number that is not finite becomes None."""
        ...

    def rows(self) -> Sequence[tuple[str, str]]:
        """(name, value with its unit) of each number, for a table."""
        ...

    def class_rows(self) -> Sequence[tuple[str, str]]:
        """The same for each class; none where the task has no number for a class."""
        ...


def percentages(names: Sequence[str], values: Sequence[float | None], without: str) -> list[tuple[str, str]]:
    """(name, percentage) of each class, for `Result.class_rows`; `without` stands for a class that has none."""
    return [(name, without if value is None else f"{value:.2f} %") for name, value in zip(names, values, strict=True)]


class Meter(Protocol):
    """Collects what one process's batches contribute to a result; the parts of all processes make the result."""

    def add(self, outputs: Any, targets: Any) -> None:
        """Take the outputs and targets of one batch, both on the model's device."""
        ...

    def state(self) -> Any:
        """What was collected, picklable and on the CPU: sums, a confusion matrix, or one entry an image."""
        ...

    def result(self, states: Sequence[Any], broken: int) -> Any:
        """The result of the states of all processes. Raises `DataError` without images, `NumericalError` for NaN."""
        ...


class Finding(Protocol):
    """What a model found in one image."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ...

    def rows(self) -> Sequence[Sequence[str]]:
        """Rows of a table with the task's columns."""
        ...

    def draw(self, image: Image.Image) -> Image.Image:
        """A picture: the RGB image, upright and in its own size, with what was found drawn on it or below it."""
        ...

    def above(self, threshold: float) -> "Finding":
        """The part of it whose probability, share of the image or score is at least `threshold`, 0 to 1."""
        ...


Writer = Callable[[Path, Sequence[str]], AbstractContextManager[Callable[[str, Any], None]]]
"""(file or folder, class names) → a block with a function to call with the path and the `Finding` of each image."""
Build = Callable[[Callable[..., nn.Module], int], nn.Module]
"""(create, outputs) → the model; see `Task.build`."""


def call(forward: Forward, images: Tensor, targets: Any) -> Any:
    """The model's outputs for whole images, in one forward pass."""
    return forward(images)


def classifier(create: Callable[..., nn.Module], outputs: int) -> nn.Module:
    """The named model with its own classifier."""
    return create(num_classes=outputs)


@dataclass(frozen=True)
class Task:
    """One task. Its fields are functions; those with a default are what classification does.

    Attributes:
        name: as `task=…` in a configuration and `task` in a checkpoint's description.
        samples: source, transforms and batches of its images and targets.
        loss: (forward, images, targets, label smoothing) → mean loss of a batch, 0-d. `images` are normalized
            (B, 3, H, W); `forward` is the model, which may take the targets too and compute its losses itself.
        loss_name: what the loss is called in figures.
        meter: (class names, output of each class or None) → a `Meter` for one evaluation. The names are those of the
            model's outputs; where the outputs are given, class k of the data is output `outputs[k]`.
        metrics: the numbers of the log, in its order. The first decides which checkpoint is the best.
        build: (create, outputs) → the model to train. `create(**options)` makes the model that `model.name` names; a
            dense task puts a decoder on `create(features_only=True)`.
        decode: (outputs, sizes, class names, top k) → a `Finding` for each image. The sizes are (height, width) of the
            files' images, to which masks and boxes are scaled; top k is the number of classes or objects, at most.
        columns: of a table of findings, after the image's name.
        infer: (forward, images, targets) → outputs, in evaluation and prediction; sliding windows for instance. The
            targets of an evaluation may say how large each image of a batch is; in prediction, whose images of a batch
            are of one size, they are None.
        inference: options of the task's verb (`cli.verbs.Option`), as keywords → another `infer`; none: no options.
        decoders: other models than `build`'s, by the name that `model.decoder` gives.
        top_k: classes or objects that a prediction shows of an image, where the user names no number.
        threshold: least probability, share or score of what is shown, where the user names none.
        writers: files of predictions, by the name of a flag of the task's verb (`cli.verbs.Output`).
    """

    name: str
    samples: Samples
    loss: Callable[[Forward, Tensor, Any, float], Tensor]
    loss_name: str
    meter: Callable[[Sequence[str], np.ndarray | None], Meter]
    metrics: tuple[Metric, ...]
    decode: Callable[[Any, Sequence[tuple[int, int]], Sequence[str], int], list[Any]]
    columns: tuple[str, ...]
    build: Build = classifier
    infer: Callable[[Forward, Tensor, Any], Any] = call
    inference: Callable[..., Callable[[Forward, Tensor, Any], Any]] | None = None
    decoders: Mapping[str, Build] = field(default_factory=dict)
    top_k: int = 5
    threshold: float = 0.0
    writers: Mapping[str, Writer] = field(default_factory=dict)

    def builder(self, decoder: str) -> Build:
        """The function that builds the model with this decoder; "" is the task's own. Raises `ConfigError`."""
        if not decoder:
            return self.build
        if decoder not in self.decoders:
            known = did_you_mean(decoder, self.decoders) if self.decoders else "leave it empty"
            raise ConfigError(f"model.decoder={decoder[:50]!r} is none of task={self.name}; {known}")
        return self.decoders[decoder]

    @property
    def decides(self) -> Metric:
        """The metric that decides which checkpoint is the best."""
        return self.metrics[0]

    def entry(self, result: Any) -> dict[str, float | None]:
        """The numbers of a result as `log.jsonl` and `summary.json` hold them."""
        return {metric.key: metric.of(result) for metric in self.metrics}
