"""CUDA graphs of an inference form: one for each input shape that comes again, replayed from any thread and stream."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from sequencer2d.errors import ConfigError, first_line

# Graphs of a model share their memory; what each adds is its input, its output and a list of launches.
MAX_GRAPHS = 32
# A shape is captured when it comes the second time, as capturing costs as much as many calls. Where a graph would have
# to give way, it must have come more often: shapes that take turns would otherwise be captured for ever.
SIGHTINGS, SIGHTINGS_CROWDED = 2, 16
_MAX_COUNTED = 1024

Value = TypeVar("Value")
# Captures go one at a time: to prepare one synchronizes the device, which another's would not survive.
_CAPTURING = threading.Lock()


class Recurring(Generic[Value]):
    """A bounded table of values for recurring keys. When it is full, the least recently used value is dropped."""

    def __init__(self, most: int = MAX_GRAPHS) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._counts: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value | None:
        """Return the key's value and mark it as used, or None if it has none."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def is_due(self, key: Hashable) -> bool:
        """Count a call of a key that has no value. Returns whether the key came often enough to get one."""
        self._counts[key] = self._counts.pop(key, 0) + 1
        if len(self._counts) > _MAX_COUNTED:
            self._counts.popitem(last=False)
        return self._counts[key] >= (SIGHTINGS if len(self) < self._most else SIGHTINGS_CROWDED)

    def put(self, key: Hashable, value: Value) -> None:
        if len(self._values) >= self._most:
            self._values.popitem(last=False)
        self._counts.pop(key, None)
        self._values[key] = value

    def clear(self) -> None:
        self._values.clear()
        self._counts.clear()


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


class Graphs:
    """Runs a function of images through CUDA graphs on one device.

    Graphs share a memory pool, so they are replayed one after another, whatever streams the calls are on. They hold the
    workspace of their matrix products too: no other model's graph and no call outside writes into it.

    Args:
        run: the function, with the weights of `model`.
        model: its graphs are dropped when a weight or a layer of it is replaced or moved.
        dtype: in which `run` takes images.
        device: on which it runs.
    """

    def __init__(
        self, run: Callable[[Tensor], Any], model: nn.Module, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._run, self._model, self.dtype, self.device = run, model, dtype, device
        self._table: Recurring[_Graph] = Recurring()
        self._weights = Weights(model)
        self._lock = threading.Lock()
        with torch.cuda.device(device):
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
            self._done = torch.cuda.Event()

    def __len__(self) -> int:
        return len(self._table)

    def __call__(self, images: Tensor) -> Any:
        """Return what `run` returns for the images, in memory that no later call overwrites."""
        if torch.cuda.is_current_stream_capturing():
            return self._run(images.to(self.dtype))  # becomes a part of the caller's graph
        key = tuple(images.shape), *_numerics()
        with self._lock:
            self._drop_outdated()
            graph = self._table.get(key)
            if graph is not None:
                return self._replay(graph, images)
            is_due = self._table.is_due(key)
        if not is_due:
            return self._run(images.to(self.dtype))
        self._capture(key, images)
        return self(images)

    def _drop_outdated(self) -> None:
        if not self._weights.are_in_place():
            self._done.synchronize()
            self._table.clear()
            self._weights = Weights(self._model)

    def _replay(self, graph: "_Graph", images: Tensor) -> Any:
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self._done)
        graph.input.copy_(images)
        graph.graph.replay()
        output = tree_map_only(Tensor, torch.clone, graph.output)
        self._done.record(stream)
        return output

    def _capture(self, key: Hashable, images: Tensor) -> None:
        with _CAPTURING, torch.cuda.device(self.device):
            with self._lock:
                if self._table.get(key) is not None:
                    return  # another thread was faster
                weights = self._weights
            graph = _Graph(self._run, images.to(self.dtype), self._stream, self._pool)
            with self._lock:
                self._done.synchronize()  # whatever gives way now is no longer running
                if weights is self._weights and weights.are_in_place():
                    self._table.put(key, graph)


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
