"""The forms in which a model runs.

eager       as it is
compile     through torch.compile, specialised to the shape
graph       the compiled step captured in a CUDA graph
autotune    the same with inductor's mode "max-autotune": minutes of compilation; only measured where it is named
optimized   ours, through `sequencer2d.optimize`; inference only
lean        as `graph`, compiled to keep MEMORY_BUDGET of the activations for backward and to compute the others again;
            training only, and only measured where it is named
paper       as the paper's Table 1 was measured: eager, fp32 without TF32 (its V100 has none), PyTorch's usual memory
            layout, SGD with Nesterov's momentum in training; fp32 only, and only measured where it is named

A workload is a model on its device with its inputs; a form turns it into a step without arguments that can be timed.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.nn import functional as F

from sequencer2d.errors import ImplementationError
from sequencer2d.models.graphs import side_stream
from sequencer2d.models.optimizing import optimize

MODES = ("inference", "training")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEAN = "lean"
PAPER = "paper"
FORMS = ("eager", "compile", "graph", "autotune", "optimized", LEAN, PAPER)
NEED_CUDA = ("graph", "autotune", LEAN)
MEMORY_BUDGET = 0.8
"""Share of the activations that the form `lean` keeps: torch._functorch.config.activation_memory_budget."""
CLASSES = 1000
LEARNING_RATE = 1e-5  # small, so that hundreds of steps on random labels leave the activations as they are
CAPTURE_WARMUP = 3

Forward = Callable[[Tensor], Tensor]


@dataclasses.dataclass
class Workload:
    """A model on its device, and one batch of random images and labels.

    Attributes:
        model: in eval mode with weights in `dtype`, or in training mode with fp32 weights.
        mode: "inference" or "training".
        dtype: of the weights and images in inference, of autocast in training.
        images: (B, 3, size, size), channels last except for the form `paper`; fp32 in training.
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
        """The model through torch.compile, specialised to the shape of the images; shared by the forms."""
        return torch.compile(self.model, dynamic=False)

    def autocast(self) -> torch.autocast:
        """Autocast for training, without its cache of weights.

        A CUDA graph must not read that cache, and a weight is cast once a step in any case.
        """
        enabled = self.mode == "training" and self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled, cache_enabled=False)


@dataclasses.dataclass
class Form:
    """A step to time, and the forward pass inside it, to check.

    Attributes:
        step: runs everything once; in inference it returns the logits (B, classes).
        forward: images to logits, differentiable in training.
        peak_mib: peak memory, where the step itself no longer shows it (a graph allocates while it is captured).
        captured: what a graph was captured from. Held because it holds tensors that the graph writes to, which lie
            outside the graph's memory: the optimizer's states.
    """

    step: Callable[[], Any]
    forward: Forward
    peak_mib: float | None = None
    captured: Callable[[], Any] | None = None


def workload(
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

    Weights and images are rounded to `dtype` in training too, so that a check against fp64 sees the arithmetic's error
    and not the rounding of its inputs.
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


def available_forms(device: torch.device) -> tuple[str, ...]:
    """The forms that are measured on a device unless others are named.

    On a CPU this is the eager form alone, which needs no compiler.
    """
    return ("eager", "compile", "graph", "optimized") if device.type == "cuda" else ("eager",)


def prepare(work: Workload, form: str) -> Form:
    """One form of a workload, compiled and captured where it needs to be.

    Raises:
        ImplementationError: a form that this device, mode or version does not have.
    """
    if form == "optimized":
        return _optimized(work)
    if form == PAPER:
        return _as_in_the_paper(work)
    if form == LEAN and work.mode == "inference":
        raise ImplementationError(f"form {LEAN!r} is for training: inference keeps no activations")
    if form in NEED_CUDA and work.device.type != "cuda":
        raise ImplementationError(f"form {form!r} needs a CUDA device, the images are on {work.device}")
    if form == "graph":
        return _captured(work, work.compiled)
    if form == LEAN:
        return _captured(work, torch.compile(work.model, dynamic=False, backend=compile_lean))
    if form == "autotune":
        return _captured(work, torch.compile(work.model, dynamic=False, mode="max-autotune-no-cudagraphs"))
    forward = work.model if form == "eager" else work.compiled
    if work.mode == "inference":
        return Form(_inference_step(forward, work.images), forward)
    return Form(_training_step(work, forward), forward)


def compile_lean(graph: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """Inductor under MEMORY_BUDGET; a backend of its own, as torch reuses the other forms' code whatever the budget."""
    with functorch_config.patch(activation_memory_budget=MEMORY_BUDGET):
        return torch._dynamo.lookup_backend("inductor")(graph, list(inputs))


def _optimized(work: Workload) -> Form:
    """`optimize` for one shape, its graph captured here as the other forms' are: without copies of input and output."""
    if work.mode == "training":
        raise ImplementationError("form 'optimized' is for inference")
    forward = optimize(work.model, dtype=work.dtype, graph=False, whole=True)
    if work.device.type == "cuda":
        return _captured(work, forward)
    return Form(_inference_step(forward, work.images), forward)


def _as_in_the_paper(work: Workload) -> Form:
    """The eager step in exact fp32; the optimizer is timm's `sgd`, whose gradients stay allocated as in its PyTorch."""
    if work.dtype != torch.float32:
        raise ImplementationError(f"form {PAPER!r} is for fp32")
    if work.mode == "inference":
        return Form(_exact_fp32(_inference_step(work.model, work.images)), _exact_fp32(work.model))
    optimizer = torch.optim.SGD(work.model.parameters(), lr=LEARNING_RATE, momentum=0.9, nesterov=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=False)
        F.cross_entropy(work.model(work.images), work.targets).backward()
        optimizer.step()

    return Form(_exact_fp32(step), _exact_fp32(work.model))


def _exact_fp32(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` without TF32, which PyTorch else lets cuDNN use."""

    @functools.wraps(function)
    def run(*inputs: Tensor) -> Any:
        with _without_tf32():
            return function(*inputs)

    return run


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def _inference_step(forward: Forward, images: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        with torch.inference_mode():
            return forward(images)

    return step


def _training_step(work: Workload, forward: Forward, *, capturable: bool = False) -> Callable[[], None]:
    """Forward, cross entropy, backward, fused AdamW; with a gradient scaler in fp16."""
    optimizer = torch.optim.AdamW(work.model.parameters(), lr=LEARNING_RATE, fused=True, capturable=capturable)
    scaler = torch.amp.GradScaler(work.device.type, enabled=work.dtype == torch.float16)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with work.autocast():
            loss = F.cross_entropy(forward(work.images), work.targets)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def _captured(work: Workload, compiled: Forward) -> Form:
    """The compiled step in a CUDA graph, its input in a fixed place."""
    if work.mode == "training" and work.dtype == torch.float16:
        raise ImplementationError("a CUDA graph cannot train in fp16: the gradient scaler decides on the host")
    run: Callable[[], Tensor | None]
    if work.mode == "inference":
        run = _inference_step(compiled, work.images)
    else:
        run = _training_step(work, compiled, capturable=True)
    graph, output, peak_mib = _capture(run, work.device)

    def step() -> Tensor | None:
        graph.replay()
        return output

    return Form(step, compiled, peak_mib, captured=run)


def _capture(
    run: Callable[[], Tensor | None], device: torch.device
) -> tuple[torch.cuda.CUDAGraph, Tensor | None, float]:
    """Capture `run` after a few runs beside the main stream; the graph, its output and the peak memory (MiB)."""
    beside = side_stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(CAPTURE_WARMUP):
            run()
    torch.cuda.current_stream(device).wait_stream(beside)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()
    torch.cuda.synchronize(device)
    peak_mib = torch.cuda.max_memory_allocated(device) / 2**20
    if output is not None:
        with torch.inference_mode():
            output.fill_(torch.nan)  # what a replay leaves unwritten must show
    return graph, output, peak_mib
