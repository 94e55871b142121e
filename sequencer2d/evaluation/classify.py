"""A classifier and labelled images → accuracy, cross entropy, calibration; the same on any number of processes."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sequencer2d import terminal
from sequencer2d.data.classes import ClassMap
from sequencer2d.data.loader import Loader
from sequencer2d.errors import DataError
from sequencer2d.evaluation.finite import refuse_broken

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class ClassificationResult:
    """What `evaluate` measures. Accuracies and the calibration error are percentages, 0 to 100."""

    top1: float
    """Images whose class has the highest logit."""
    top5: float
    """Images whose class is among the 5 highest logits, or among all of them where there are fewer classes."""
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a number that is not finite becomes None."""
        fields = dataclasses.asdict(self)
        return {name: None if _not_finite(value) else value for name, value in fields.items()}


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


def evaluate(
    model: nn.Module,
    loader: Loader,
    *,
    device: torch.device | str,
    amp_dtype: torch.dtype | None = None,
    progress: bool | Callable[[], object] = False,
    classes: ClassMap | None = None,
) -> ClassificationResult:
    """Evaluate `model` on every image of `loader`; over all processes if torch.distributed runs.

    Each process evaluates its loader's images; the outcomes of all of them are gathered, so every process returns the
    same result, and it does not depend on how the images were dealt out.

    Args:
        model: images (B, 3, H, W), normalised → logits (B, classes). Runs in eval mode; its mode is restored.
        loader: an evaluation loader (`build_loader(…, train=False)`).
        device: where the model is.
        amp_dtype: run the model under autocast in this dtype; probabilities are computed in float32 in any case.
        progress: True for a progress bar on stderr (first process only), or a function to call after every batch.
        classes: the data's classes among the model's outputs; none: class 0 is output 0, and so on.

    Raises:
        DataError: no images, or the model has fewer outputs than the data have classes.
        NumericalError: outputs that are not finite, in every process alike.
    """
    device = torch.device(device)
    names = loader.class_names if classes is None else classes.names
    outputs = None if classes is None else torch.from_numpy(classes.outputs)
    with _evaluating(model), _progress(progress, len(loader)) as advance:
        parts = []
        for images, targets in loader:
            logits = _logits(model, loader.normalize(images, device=device), amp_dtype)
            _check_classes(logits, names)
            targets = targets if outputs is None else outputs[targets]
            parts.append(_outcomes(logits, targets.to(device)))
            advance()
    gathered = _gather((parts, sorted(loader.broken)))
    outcomes = concatenate([part for process_parts, _ in gathered for part in process_parts])
    refuse_broken(int(np.isnan(outcomes.confidences).sum()), len(outcomes.confidences))
    broken = {name for _, names in gathered for name in names}
    return summarize(outcomes, names, broken=len(broken))


def summarize(outcomes: Outcomes, class_names: tuple[str, ...], *, broken: int = 0) -> ClassificationResult:
    """The result of all images' outcomes, in any order: sums are exact. Raises `DataError` if there are none."""
    count = len(outcomes.targets)
    if not count:
        raise DataError(f"no images to evaluate ({broken} could not be read)" if broken else "no images to evaluate")
    hits = outcomes.predictions == outcomes.targets
    of_class = np.bincount(outcomes.targets, minlength=len(class_names))
    right = np.bincount(outcomes.targets[hits], minlength=len(class_names))
    return ClassificationResult(
        top1=100 * int(hits.sum()) / count,
        top5=100 * int(outcomes.in_top5.sum()) / count,
        cross_entropy=_exact_sum(outcomes.losses) / count,
        calibration_error=100 * calibration_error(outcomes.confidences, hits),
        per_class=tuple(100 * int(r) / int(n) if n else None for r, n in zip(right, of_class, strict=True)),
        class_names=class_names,
        count=count,
        broken=broken,
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


def _logits(model: nn.Module, images: Tensor, amp_dtype: torch.dtype | None) -> Tensor:
    with torch.autocast(images.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        logits: Tensor = model(images)
    return logits.float()


def _outcomes(logits: Tensor, targets: Tensor) -> Outcomes:
    log_probabilities = logits.log_softmax(-1)
    best = logits.topk(min(5, logits.shape[-1]), dim=-1).indices
    confidences = log_probabilities.gather(1, best[:, :1]).squeeze(1).exp()
    losses = -log_probabilities.gather(1, targets[:, None]).squeeze(1)
    in_top5 = (best == targets[:, None]).any(-1)
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


def _gather(value: Any) -> list[Any]:
    """`value` of every process, in all of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _progress(progress: bool | Callable[[], object], batches: int) -> Iterator[Callable[[], object]]:
    if callable(progress):
        yield progress
    elif not progress or (dist.is_available() and dist.is_initialized() and dist.get_rank()):
        yield lambda: None
    else:
        from rich.progress import Progress

        with Progress(console=terminal.console(error=True), transient=True) as bar:
            task = bar.add_task("evaluate", total=batches)
            yield lambda: bar.advance(task)


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
