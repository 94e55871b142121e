"""Accuracy, cross entropy and calibration of a classifier; the same on any number of processes."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sequencer2d.errors import DataError
from sequencer2d.tasks.finite import refuse_broken
from sequencer2d.tasks.task import percentages

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassificationResult:
    """What an evaluation of a classifier measures. Accuracies and the calibration error are percentages, 0 to 100."""

    top1: float
    """Share of the images whose class has the highest logit."""
    top5: float
    """Share of the images whose class is among the 5 highest logits, or among all if there are fewer classes."""
    cross_entropy: float
    """Mean of -log p(class), in nats."""
    calibration_error: float
    """Expected calibration error (Guo et al. 2017, eq. 3): images are put into 15 bins of equal width by the
    probability of the predicted class; the mean over images of |accuracy - mean probability| of their bin."""
    per_class: tuple[float | None, ...]
    """Top-1 accuracy of each class; None for a class without images."""
    class_names: tuple[str, ...]
    count: int
    """Images evaluated."""
    broken: int
    """Images that could not be read and are left out."""
    pairs: tuple[tuple[int, int, int], ...] = ()
    """The confusion matrix without its zeros: (class, predicted class, images)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the confusion matrix; a number that is not finite becomes None."""
        fields = dataclasses.asdict(dataclasses.replace(self, pairs=()))
        return {name: None if _not_finite(value) else value for name, value in fields.items() if name != "pairs"}

    def rows(self) -> list[tuple[str, str]]:
        """(name, value with its unit) of each number."""
        return [
            ("top-1", f"{self.top1:.2f} %"),
            ("top-5", f"{self.top5:.2f} %"),
            ("cross entropy", f"{self.cross_entropy:.4f} nats"),
            ("calibration error", f"{self.calibration_error:.2f} %"),
        ]

    def class_rows(self) -> list[tuple[str, str]]:
        """(name, top-1 accuracy) of each class."""
        return percentages(self.class_names, self.per_class, "no images")


@dataclass(frozen=True)
class Outcomes:
    """What the model made of each image of one process; all arrays (N,)."""

    targets: np.ndarray
    predictions: np.ndarray
    in_top5: np.ndarray
    confidences: np.ndarray
    """Probability of the predicted class."""
    losses: np.ndarray
    """Cross entropy in nats."""


class AccuracyMeter:
    """Collects what a classifier made of each image; a `Meter`.

    Args:
        class_names: name of each output, or of the first ones.
        outputs: int64 (classes of the data,), the output of each class; None: class 0 is output 0, and so on.
    """

    def __init__(self, class_names: Sequence[str], outputs: np.ndarray | None = None) -> None:
        self.class_names = tuple(class_names)
        self._outputs = None if outputs is None else torch.from_numpy(outputs)
        self._parts: list[Outcomes] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take logits (B, classes) and int64 targets (B,). Raises `DataError` for too few logits."""
        logits = outputs.float()
        _check_classes(logits, self.class_names)
        if self._outputs is not None:
            targets = self._outputs.to(targets.device)[targets]
        self._parts.append(_outcomes(logits, targets))

    def state(self) -> list[Outcomes]:
        """The outcomes of each batch."""
        return self._parts

    def result(self, states: Sequence[list[Outcomes]], broken: int) -> ClassificationResult:
        """The result of all images. Raises `DataError` without images, `NumericalError` for outputs that are NaN."""
        outcomes = concatenate([part for parts in states for part in parts])
        refuse_broken(int(np.isnan(outcomes.confidences).sum()), len(outcomes.confidences))
        return summarize(outcomes, self.class_names, broken=broken)


def summarize(outcomes: Outcomes, class_names: tuple[str, ...], *, broken: int = 0) -> ClassificationResult:
    """The result of all images' outcomes, in any order: sums are exact. Raises `DataError` if there are none."""
    count = len(outcomes.targets)
    if not count:
        raise DataError(f"no images to evaluate ({broken} could not be read)" if broken else "no images to evaluate")
    hits = outcomes.predictions == outcomes.targets
    of_class = np.bincount(outcomes.targets, minlength=len(class_names))
    right = np.bincount(outcomes.targets[hits], minlength=len(class_names))
    pairs, counts = np.unique(np.stack([outcomes.targets, outcomes.predictions], axis=1), axis=0, return_counts=True)
    return ClassificationResult(
        top1=100 * int(hits.sum()) / count,
        top5=100 * int(outcomes.in_top5.sum()) / count,
        cross_entropy=_exact_sum(outcomes.losses) / count,
        calibration_error=100 * calibration_error(outcomes.confidences, hits),
        per_class=tuple(100 * int(r) / int(n) if n else None for r, n in zip(right, of_class, strict=True)),
        class_names=class_names,
        count=count,
        broken=broken,
        pairs=tuple((t, p, n) for (t, p), n in zip(pairs.tolist(), counts.tolist(), strict=True)),
    )


def calibration_error(confidences: np.ndarray, hits: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error, 0 to 1, of N predictions (Guo et al. 2017, eq. 3).

    Args:
        confidences: (N,) probability of each predicted class.
        hits: (N,) whether it was right.
        bins: of equal width; bin k holds the confidences in (k / bins, (k + 1) / bins].
    """
    if not np.isfinite(confidences).all():
        return math.nan
    bin_of = np.clip(np.ceil(confidences.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    gaps = (abs(int(hits[bin_of == k].sum()) - _exact_sum(confidences[bin_of == k])) for k in range(bins))
    return math.fsum(gaps) / len(confidences)


def concatenate(parts: list[Outcomes]) -> Outcomes:
    """The outcomes of several batches as one; no parts make an empty one."""
    names = [field.name for field in dataclasses.fields(Outcomes)]
    empty = np.empty(0, dtype=np.int64)
    return Outcomes(**{name: np.concatenate([getattr(part, name) for part in parts] or [empty]) for name in names})


def _outcomes(logits: Tensor, targets: Tensor) -> Outcomes:
    log_probabilities = logits.log_softmax(1)
    best = logits.topk(min(5, logits.shape[1])).indices
    confidences = log_probabilities.gather(1, best[:, :1]).squeeze(1).exp()
    losses = -log_probabilities.gather(1, targets[:, None]).squeeze(1)
    in_top5 = (best == targets[:, None]).any(1)
    tensors = (targets, best[:, 0], in_top5, confidences, losses)
    return Outcomes(*(tensor.cpu().numpy() for tensor in tensors))


def _check_classes(logits: Tensor, names: Sequence[str]) -> None:
    if logits.ndim != 2 or logits.shape[1] < len(names):
        raise DataError(
            f"the model's output has shape {tuple(logits.shape)}, the data have {len(names)} classes; "
            "evaluate on the data the model was made for"
        )


def _exact_sum(values: np.ndarray) -> float:
    """The sum, correctly rounded and hence the same in any order; NaN if a value is not finite."""
    return math.fsum(values.tolist()) if np.isfinite(values).all() else math.nan


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
