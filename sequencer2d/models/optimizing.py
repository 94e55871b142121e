"""The fastest inference form of a model in one line."""

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models.fusing import fuse
from sequencer2d.nn.frozen import freeze
from sequencer2d.nn.rnn2d import RNN2D

# Each captured shape holds its own buffers; a service with many shapes would otherwise fill the GPU with graphs.
MAX_GRAPHS = 8


def optimize(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    compile: bool | str = True,
    graph: bool | None = None,
) -> "Optimized":
    """Return a copy of a Sequencer in its fastest form for inference, in eval mode, without gradients.

    Takes our models and, through `fuse`, timm's and the authors'. The copy's weights are packed. Its GELU is done in
    the epilogue of the matrix product before it and, in 16 bits on CUDA, each residual sum of our models and timm's in
    that of its branch's last product; their norms' scales and biases become part of the products behind them. Each
    input shape's first call compiles (seconds to a minute) and captures a CUDA graph.

    Args:
        model: on the device it shall run on; it is not changed.
        dtype: of weights and computation; default bfloat16 on CUDA, float32 on a CPU. Images of any floating dtype are
            converted. In 16 bits on CUDA the GELU takes its tanh form, which differs by at most 5e-4.
        compile: whether to use torch.compile, or the name of its mode.
        graph: whether to replay CUDA graphs; default on CUDA. What a call returns is its own: the next call does not
            overwrite it.

    Returns:
        A module that maps images (B, in_chans, H, W) to what `model` returns for them.

    Raises:
        InputError: the model holds no recurrent token mixer.
        ConfigError: graphs were asked for on a device other than CUDA.
    """
    device = next(model.parameters()).device
    if graph is None:
        graph = device.type == "cuda"
    if graph and device.type != "cuda":
        raise ConfigError(f"graph=True needs a CUDA device; the model is on {device}")
    if dtype is None:
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    if not any(isinstance(module, RNN2D) for module in frozen.modules()):
        fuse(frozen)
    in_place = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    return Optimized(freeze(frozen, in_place).to(dtype), dtype, compile, graph)


class Optimized(nn.Module):
    """What `optimize` returns. `model` is the frozen network, `dtype` what it computes in."""

    def __init__(self, model: nn.Module, dtype: torch.dtype, compile: bool | str, graph: bool) -> None:
        super().__init__()
        self.model, self.dtype, self.graph = model, dtype, graph
        mode = compile if isinstance(compile, str) else None
        self._run = torch.compile(_with_code_of_its_own(model), mode=mode, fullgraph=True) if compile else model
        self._graphs: OrderedDict[tuple[int, ...], _Graph] = OrderedDict()

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        # Before the conversion, which would let images of bytes pass unnormalised.
        if not images.is_floating_point():
            raise InputError(
                f"images have dtype {images.dtype}; expected floating point: scale and normalise them first"
            )
        if not self.graph:
            return self._run(images.to(self.dtype))
        shape = tuple(images.shape)
        if shape not in self._graphs:
            if len(self._graphs) == MAX_GRAPHS:
                self._graphs.popitem(last=False)
            self._graphs[shape] = _Graph(self._run, images.to(self.dtype))
        self._graphs.move_to_end(shape)
        return self._graphs[shape](images)


def _with_code_of_its_own(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function that calls `model`. The compiler counts what it compiles by code object, which all models of a class
    share, and refuses the ninth; this one's is new.
    """

    def call(images: Tensor) -> Tensor:
        return model(images)

    call.__code__ = call.__code__.replace()
    return call


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where calls run before they are captured. One for all: matrix products keep 32 MiB for each stream they saw."""
    return torch.cuda.Stream(device)


class _Graph:
    """A CUDA graph of one call, with the buffers that it reads and writes."""

    def __init__(self, run, images: Tensor) -> None:  # type: ignore[no-untyped-def]
        self.input = images.clone()
        stream = side_stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                run(self.input)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = run(self.input)

    def __call__(self, images: Tensor) -> Tensor:
        self.input.copy_(images)
        self.graph.replay()
        return self.output.clone()
