"""Steps: a workload as one call without arguments that can be timed, and the forward pass inside it, to check."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as functorch_config
from torch.nn import functional as F

from sequencer2d.benchmark.workload import Forward, Workload
from sequencer2d.errors import ImplementationError
from sequencer2d.models.graphs import side_stream
from sequencer2d.models.optimizing import optimize
from sequencer2d.ops.precision import tf32

MEMORY_BUDGET = 0.8
"""Share of the activations that the form `lean` keeps: torch._functorch.config.activation_memory_budget."""
LEARNING_RATE = 1e-5  # small, so that hundreds of steps on random labels leave the activations as they are
CAPTURE_WARMUP = 3


@dataclasses.dataclass
class Step:
    """What is timed.

    Attributes:
        run: runs everything once; in inference it returns the logits (B, classes).
        forward: images to logits, differentiable in training.
        peak_mib: peak memory, where the step itself no longer shows it (a graph allocates while it is captured).
        captured: what a graph was captured from. It is kept because it owns tensors that the graph writes to and that
            lie outside the graph's memory: the optimizer's states.
    """

    run: Callable[[], Any]
    forward: Forward
    peak_mib: float | None = None
    captured: Callable[[], Any] | None = None

    def prepare_again(self, device: torch.device) -> None:
        """Choose the algorithms of convolutions anew, which another process may have disturbed: run, or capture again.

        The code that torch.compile made stays.
        """
        if self.captured is None:
            self.run()
        else:
            self.capture(device)

    def capture(self, device: torch.device) -> None:
        """Have `run` replay a CUDA graph of `captured`, in place of an earlier graph."""
        assert self.captured is not None
        self.run = self.captured  # lets go of the earlier graph
        graph, output, self.peak_mib = _capture(self.captured, device)

        def replay() -> Tensor | None:
            graph.replay()
            return output

        self.run = replay


def eager(work: Workload) -> Step:
    """The model as it is."""
    return _called(work, work.model)


def compiled(work: Workload) -> Step:
    """The model through torch.compile."""
    return _called(work, work.compiled)


def graph(work: Workload) -> Step:
    """The compiled step in a CUDA graph."""
    return _captured(work, work.compiled)


def autotuned(work: Workload) -> Step:
    """As `graph`, compiled with inductor's mode "max-autotune"."""
    return _captured(work, torch.compile(work.model, dynamic=False, mode="max-autotune-no-cudagraphs"))


def lean(work: Workload) -> Step:
    """As `graph`, compiled to keep MEMORY_BUDGET of the activations."""
    return _captured(work, torch.compile(work.model, dynamic=False, backend=compile_lean))


def optimized(work: Workload) -> Step:
    """`sequencer2d.optimize` for one shape.

    Its graph is captured here, as those of the other forms are: without copies of input and output.
    """
    return of_forward(work, optimize(work.model, dtype=work.dtype, graph=False, whole=True))


def of_forward(work: Workload, forward: Forward) -> Step:
    """The step around any form of the model: in a CUDA graph where there is a GPU."""
    return _captured(work, forward) if work.device.type == "cuda" else _called(work, forward)


def as_in_the_paper(work: Workload) -> Step:
    """The eager step in exact fp32; the optimizer is timm's `sgd`, whose gradients stay allocated as in its PyTorch."""
    forward = _exact_fp32(work.model)
    if work.mode == "inference":
        return Step(_exact_fp32(_inference_step(work.model, work.images)), forward)
    optimizer = torch.optim.SGD(work.model.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(work.model(work.images), work.targets).backward()
        optimizer.step()

    return Step(_exact_fp32(run), forward)


def compile_lean(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Inductor under MEMORY_BUDGET.

    It is a backend of its own because torch would reuse the code of the other forms, whatever the budget.
    """
    with functorch_config.patch(activation_memory_budget=MEMORY_BUDGET):
        return torch._dynamo.lookup_backend("inductor")(graph, list(inputs))


def _called(work: Workload, forward: Forward) -> Step:
    if work.mode == "inference":
        return Step(_inference_step(forward, work.images), forward)
    return Step(_training_step(work, forward), forward)


def _exact_fp32(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without TF32, which PyTorch otherwise lets cuDNN use."""

    @functools.wraps(function)
    def run(*inputs: Tensor) -> Any:
        with tf32(False):
            return function(*inputs)

    return run


def _inference_step(forward: Forward, images: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.inference_mode():
            return forward(images)

    return run


def _training_step(work: Workload, forward: Forward, *, capturable: bool = False) -> Callable[[], None]:
    """Forward, cross entropy, backward, fused AdamW; with a gradient scaler in fp16."""
    optimizer = torch.optim.AdamW(work.model.parameters(), lr=LEARNING_RATE, fused=True, capturable=capturable)
    scaler = torch.amp.GradScaler(work.device.type, enabled=work.dtype == torch.float16)

    def run() -> None:
        optimizer.zero_grad()
        with work.autocast():
            loss = F.cross_entropy(forward(work.images), work.targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return run


def _captured(work: Workload, forward: Forward) -> Step:
    """The step around a compiled `forward` in a CUDA graph, its input in a fixed place."""
    if work.mode == "training" and work.dtype == torch.float16:
        raise ImplementationError("a CUDA graph cannot train in fp16: the gradient scaler decides on the host")
    once: Callable[[], Tensor | None]
    if work.mode == "inference":
        once = _inference_step(forward, work.images)
    else:
        once = _training_step(work, forward, capturable=True)
    step = Step(once, forward, captured=once)
    step.capture(work.device)
    return step


def _capture(
    once: Callable[[], Tensor | None], device: torch.device
) -> tuple[torch.cuda.CUDAGraph, Tensor | None, float]:
    """Capture `once` after a few runs beside the main stream; the graph, its output and the peak memory (MiB)."""
    beside = side_stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(CAPTURE_WARMUP):
            once()
    torch.cuda.current_stream(device).wait_stream(beside)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = once()
    torch.cuda.synchronize(device)
    peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
    if output is not None:
        with torch.inference_mode():
            output.fill_(torch.nan)  # whatever a replay leaves unwritten must show
    return graph, output, peak_mib
