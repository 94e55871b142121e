"""CUDA graphs of an inference form, for input shapes that come again; replayed from any thread and stream."""

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError, first_line
from sequencer2d.models.compiling import Form
from sequencer2d.models.graph_table import PADDED_PIXELS, GraphTable, first_images, own_memory, pad_batch

# Captures go one at a time: to prepare one synchronizes the device, which another's would not survive.
_CAPTURING = threading.Lock()


class Weights:
    """The tensors of a model and where they lie in memory now. A CUDA graph of the model reads them there."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._tables = [table for m in modules for table in (m._parameters, m._buffers, m._modules) if table]
        # Held, so that none of their identities and addresses is given to another.
        self._held = [value for table in self._tables for value in table.values()]
        self._tensors = [value for value in self._held if isinstance(value, Tensor)]
        self._storages = [tensor.untyped_storage() for tensor in self._tensors]
        self._identities, self._addresses = self._identify(), self._locate()

    def _identify(self) -> list[int]:
        return [identity for table in self._tables for identity in map(id, table.values())]

    def _locate(self) -> list[int]:
        return [tensor.data_ptr() for tensor in self._tensors]

    def are_in_place(self) -> bool:
        """Whether no tensor or module was replaced or moved since. New values in the same place do not matter."""
        return self._identify() == self._identities and self._locate() == self._addresses


class Replays:
    """Runs a function of images through what was recorded of it: a recording for each batch and image size that recurs.

    A batch without a recording of its own is padded for a larger one, if the images do not influence each other. This
    class chooses, pads and cuts; how to record and to replay is the matter of one that inherits it.

    Args:
        run: the function, with the weights of `model`, and what it knows of its compiled code.
        model: its recordings are dropped when a weight or a layer of it is replaced or moved.
        dtype: in which `run` takes images.
        pads: whether batches may be padded.
    """

    def __init__(self, run: Form, model: nn.Module, dtype: torch.dtype, pads: bool) -> None:
        self._run, self._model, self._pads, self.dtype = run, model, pads, dtype
        self._table: GraphTable[Any] = GraphTable()
        self._weights = Weights(model)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._table)

    def __call__(self, images: Tensor) -> Any:
        """Return what `run` returns for the images, in memory that no later call overwrites."""
        kind, batch = (tuple(images.shape[1:]), *_numerics()), len(images)
        with self._lock:
            self._drop_outdated()
            choice = self._table.choose(
                kind, batch, self._most_padded(images), functools.partial(self._ready_batch, images)
            )
            if choice.graph is not None:
                return self._replay(choice.graph, images)
        if choice.capture is not None:
            self._capture(kind, pad_batch(images.to(self.dtype), choice.capture))
            return self(images)
        padded = pad_batch(images.to(self.dtype), choice.run or batch)
        output = self._run(padded)
        missing = self._run.missing_batch(padded.shape) if self._pads else None
        if missing is not None:  # so that the first call compiles for the others
            self._run(pad_batch(padded, missing))
        return output if len(padded) == batch else own_memory(first_images(output, batch, len(padded)))

    def _most_padded(self, images: Tensor) -> int:
        """The images to which a batch may be padded."""
        return PADDED_PIXELS // (images.shape[-2] * images.shape[-1]) if self._pads else 0

    def _ready_batch(self, images: Tensor) -> int:
        return self._run.ready_batch(images.shape) if self._pads else len(images)

    def _drop_outdated(self) -> None:
        if not self._weights.are_in_place():
            self._settle()
            self._table.clear()
            self._weights = Weights(self._model)

    def _capture(self, kind: Hashable, images: Tensor) -> None:
        with self._recording():
            with self._lock:
                if (kind, len(images)) in self._table:
                    return  # another thread was faster
                weights = self._weights
            recording = self._record(images)
            with self._lock:
                self._settle()  # whatever gives way now is no longer running
                if weights is self._weights and weights.are_in_place():
                    self._table.put(kind, len(images), recording)

    def _recording(self) -> contextlib.AbstractContextManager[None]:
        """What surrounds the making of a recording."""
        return contextlib.nullcontext()

    def _record(self, images: Tensor) -> Any:
        """Record the run of images of this shape."""
        raise NotImplementedError

    def _replay(self, recording: Any, images: Tensor) -> Any:
        """Return the output for the images, which may be fewer than those of the recording, in memory of its own."""
        raise NotImplementedError

    def _settle(self) -> None:
        """Wait until no recording is running."""


class Graphs(Replays):
    """Replays of CUDA graphs on one device.

    Graphs share a memory pool, so they are replayed one after another, whatever streams the calls are on. They hold the
    workspace of their matrix products too: no other model's graph and no call outside writes into it.

    Args:
        run, model, dtype, pads: see `Replays`.
        device: on which it runs.
    """

    def __init__(self, run: Form, model: nn.Module, dtype: torch.dtype, pads: bool, device: torch.device) -> None:
        super().__init__(run, model, dtype, pads)
        self.device = device
        with torch.cuda.device(device):
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
            self._done = torch.cuda.Event()

    def __call__(self, images: Tensor) -> Any:
        if torch.cuda.is_current_stream_capturing():
            return self._run(images.to(self.dtype))  # becomes a part of the caller's graph
        return super().__call__(images)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        with _CAPTURING, torch.cuda.device(self.device):
            yield

    def _record(self, images: Tensor) -> "_Graph":
        return _Graph(self._run, images, self._stream, self._pool)

    def _replay(self, recording: "_Graph", images: Tensor) -> Any:
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self._done)
        recording.input[: len(images)].copy_(images)
        recording.graph.replay()
        output = own_memory(first_images(recording.output, len(images), len(recording.input)))
        self._done.record(stream)
        return output

    def _settle(self) -> None:
        self._done.synchronize()


class _Graph:
    """A CUDA graph of one call, with the tensors that it reads and writes."""

    def __init__(self, run: Callable[[Tensor], Any], images: Tensor, stream: torch.cuda.Stream, pool: Any) -> None:
        self.input = torch.empty_like(images)
        self.input.copy_(images)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):
            run(self.input)
        stream.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        try:
            # Other threads go on allocating memory meanwhile.
            with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                _forget_workspaces()
                self.output = run(self.input)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ConfigError(
                f"the model cannot be captured in a CUDA graph ({first_line(error)}): give graph=False"
            ) from error
        finally:
            _forget_workspaces()


def _forget_workspaces() -> None:
    """Let each matrix product's stream take a new workspace: in a capture, one in the graph's own memory.

    cuBLAS has one for each stream, streams come from a pool of 32, and so two graphs could write into the same one.
    """
    torch._C._cuda_clearCublasWorkspaces()


def _numerics() -> tuple[Hashable, ...]:
    """Return the global settings by which torch chooses kernels. A graph keeps those with which it was captured."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return (
        # Where the newer interface exists, to read the older one may be an error.
        matmul.fp32_precision if hasattr(matmul, "fp32_precision") else matmul.allow_tf32,
        cudnn.rnn.fp32_precision if hasattr(cudnn, "rnn") else cudnn.allow_tf32,  # type: ignore[attr-defined]
        matmul.allow_fp16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction,
        torch.are_deterministic_algorithms_enabled(),
    )


@functools.cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """Where a benchmark's calls run before they are captured."""
    return torch.cuda.Stream(device)
