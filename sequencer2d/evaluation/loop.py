"""A model and labeled images → the numbers of its task; the same on any number of processes."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sequencer2d import terminal
from sequencer2d.data.classes import ClassMap
from sequencer2d.data.loader import Loader
from sequencer2d.data.samples import map_tensors
from sequencer2d.evaluation.modes import eval_mode
from sequencer2d.tasks import CLASSIFICATION, Task


def evaluate(
    model: nn.Module,
    loader: Loader,
    task: Task = CLASSIFICATION,
    *,
    device: torch.device | str,
    amp_dtype: torch.dtype | None = None,
    progress: bool | Callable[[], object] = False,
    classes: ClassMap | None = None,
) -> Any:
    """Evaluate `model` on every image of `loader`; over all processes if torch.distributed runs.

    Each process evaluates its loader's images; what the task collects from them is gathered, so every process returns
    the same result, and it does not depend on how the images were dealt out.

    Args:
        model: normalized images (B, 3, H, W) → outputs; logits (B, classes) for classification. It is moved to `device`
            in place and runs in eval mode; its mode is restored.
        loader: an evaluation loader (`build_loader(…, train=False)`).
        task: what to measure.
        device: where the model runs.
        amp_dtype: run the model under autocast in this dtype; the task computes in float32 in any case.
        progress: True for a progress bar on stderr (first process only), or a function to call after every batch.
        classes: the data's classes among the model's outputs; none: class 0 is output 0, and so on.

    Returns:
        The task's result, `tasks.accuracy.ClassificationResult` for classification.

    Raises:
        DataError: no images, or the model has fewer outputs than the data have classes.
        NumericalError: outputs that are not finite, in every process alike.
    """
    device = torch.device(device)
    model = model.to(device)
    names, outputs = (loader.class_names, None) if classes is None else (classes.names, classes.outputs)
    meter = task.meter(names, outputs)

    def forward(*arguments: Any) -> Any:
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            return model(*arguments)

    def to_device(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    with eval_mode(model), torch.inference_mode(), _progress(progress, len(loader)) as advance:
        for images, targets in loader:
            targets = map_tensors(to_device, targets)
            meter.add(task.infer(forward, loader.normalize(images, device=device), targets), targets)
            advance()
    gathered = _gather((meter.state(), sorted(loader.broken)))
    broken = {name for _, names in gathered for name in names}
    return meter.result([state for state, _ in gathered], len(broken))


def _gather(value: Any) -> list[Any]:
    """`value` of every process, in all of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


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
