"""Launches through handles. What Triton's Python works out for every launch is kept from the first one of its kind.

A launch through `kernel[grid](...)` binds some thirty arguments, describes each of them, and looks the binary up by a
string of all options. That takes longer than the kernel itself for a small batch. A handle holds the binary, its grid
and all arguments but the tensors, and takes the tensors' addresses. While no profiler observes launches, it leaves out
what Triton does for one, too.
"""

import functools
import importlib
import operator
import threading
from collections.abc import Callable, Hashable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# Each shape of tokens needs a few. When there are more, the oldest is dropped and prepared anew should it come again.
MAX_HANDLES = 2048
# Binaries are made for addresses that are multiples of so many bytes, if those of the first launch were.
_ALIGNMENT = 16

_DTYPE_OF = operator.attrgetter("dtype")
_HANDLES: dict[Hashable, "Handle"] = {}
_LOCK = threading.Lock()


class Handle:
    """One kernel's binary on one device with everything that a launch needs but the tensors.

    Args:
        start: Triton's launch, which takes the tensors' addresses, `rest` and the stream.
        unobserved: the launch without profilers; None if this Triton has no such one.
        dtypes: of the tensors, for which the binary was compiled.
        rest: the arguments after the tensors, constants included.
        device: the index of the GPU.
    """

    __slots__ = ("_device", "_rest", "_start", "_unobserved", "dtypes")

    def __init__(
        self,
        start: Callable[..., Any],
        unobserved: "Unobserved | None",
        dtypes: list[torch.dtype],
        rest: tuple[Any, ...],
        device: int,
    ) -> None:
        self._start, self._unobserved, self.dtypes, self._rest, self._device = start, unobserved, dtypes, rest, device

    def launch(self, addresses: list[int]) -> None:
        """Launch on the current stream of the device, which must be the current one."""
        stream, quick = torch._C._cuda_getCurrentRawStream(self._device), self._unobserved
        if quick is None or quick.is_observed():
            self._start(*addresses, *self._rest, stream=stream)
        else:
            quick.run(*quick.grid, stream, *quick.binary, *addresses, *self._rest)


class Unobserved(NamedTuple):
    """A launch of a binary as Triton does it, but for what it prepares for profilers at each one.

    Attributes:
        run: what starts the binary.
        grid: of the launch, three numbers.
        binary: what `run` takes between stream and arguments: function, packed metadata, nothing for profilers.
        runtime: Triton's settings, which name the profilers.
        hooks: the two chains of profilers that stood there.
    """

    run: Callable[..., Any]
    grid: tuple[int, ...]
    binary: tuple[Any, ...]
    runtime: Any
    hooks: tuple[Any, Any]

    def is_observed(self) -> bool:
        """Whether a profiler may observe launches now."""
        before, after = self.hooks
        is_same = self.runtime.launch_enter_hook is before and self.runtime.launch_exit_hook is after
        return not is_same or bool(before.calls or after.calls)


def find_unobserved(compiled: Any, grid: tuple[int, ...]) -> Unobserved | None:
    """The launch of a loaded binary without profilers; None where this Triton starts binaries in another way."""
    called: list[tuple[Any, ...]] = []
    try:
        runtime: Any = importlib.import_module("triton.knobs").runtime
        hooks = (runtime.launch_enter_hook, runtime.launch_exit_hook)
        binary = (compiled.function, compiled.packed_metadata)
        # Triton's own code, with something in the place of the binary that shows how it is started.
        stand_in = SimpleNamespace(
            _init_handles=lambda: None,
            launch_metadata=lambda *_: "metadata",
            run=lambda *arguments: called.append(arguments),
            function=binary[0],
            packed_metadata=binary[1],
        )
        type(compiled).__getitem__(stand_in, grid)("argument", stream="stream")
        if any(not isinstance(hook.calls, list) for hook in hooks):
            return None
    except (AttributeError, ImportError, TypeError):
        return None
    if called != [(*grid, "stream", *binary, "metadata", *hooks, "argument")]:
        return None
    return Unobserved(compiled.run, grid, (*binary, None, None, None), runtime, hooks)


def make_handle(kernel: Any, compiled: Any, grid: tuple[int, ...], arguments: Any, options: Any) -> Handle | None:
    """The handle for repeating a launch; None if it can only be repeated as it was done.

    That is so in the interpreter, and for tensors at addresses that the next ones need not have.

    Args:
        kernel: Triton's or Gluon's function.
        compiled: what the launch returned, the binary.
        grid: of the launch.
        arguments: those given by position: tensors first.
        options: those given by name: constants, and options of the launch.
    """
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    names = getattr(kernel, "arg_names", None)
    if names is None or not hasattr(compiled, "packed_metadata") or not tensors or isinstance(tensors[0], FakeTensor):
        return None
    if addresses_of(tensors) is None:
        return None
    values = [*arguments, *(options[name] for name in names[len(arguments) :])]
    sizes = (*grid, 1, 1)[:3]
    dtypes, rest = [tensor.dtype for tensor in tensors], tuple(values[len(tensors) :])
    return Handle(compiled[sizes], find_unobserved(compiled, sizes), dtypes, rest, tensors[0].device.index)


def repeat(key: Hashable, *tensors: Tensor) -> bool:
    """Launch again what was kept under a key, with other tensors. Returns whether that could be done.

    Args:
        key: everything that the launch depends on but the tensors' addresses and dtypes: the kernel, shapes, the
            device, constants.
        tensors: the tensors of the launch in the kernel's order.
    """
    handle = _HANDLES.get(key)
    if handle is None or handle.dtypes != list(map(_DTYPE_OF, tensors)):
        return False
    addresses = addresses_of(tensors)
    if addresses is None:
        return False
    handle.launch(addresses)
    return True


def keep(key: Hashable, handle: Handle | None) -> None:
    """Keep a handle for `repeat`."""
    if handle is None:
        return
    with _LOCK:
        while len(_HANDLES) >= MAX_HANDLES:
            del _HANDLES[next(iter(_HANDLES))]
        _HANDLES[key] = handle


def addresses_of(tensors: Any) -> list[int] | None:
    """Where the tensors lie; None if one of them is not aligned as the binaries of handles expect, or is fake."""
    if FakeTensor in map(type, tensors):
        return None
    addresses = list(map(Tensor.data_ptr, tensors))
    return None if functools.reduce(operator.or_, addresses) % _ALIGNMENT else addresses
