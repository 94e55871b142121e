"""The table of devices that the kernels run on. A GPU without a row runs the vendor's kernels."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from sequencer2d.ops.launches import H200, LaunchTable

_Function = TypeVar("_Function", bound=Callable[..., Any])


def constant(function: _Function) -> _Function:
    """Let torch.compile take the function's result for a constant.

    It does what `torch.compiler.assume_constant_result` does. That function imports torch._dynamo, which takes
    seconds that only those who compile should spend.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        name: a GPU of the kind.
        capability: its compute capability, None for the interpreter.
        shared_bytes: the shared memory that one program can have.
        starts_early: whether a launch can start before the previous one has ended (programmatic dependent launch).
        inline_ptx: whether the kernels may use PTX, as for the hardware's tanh.
        launches: how kernels are launched. Only an H200 was measured; other devices use its table.
    """

    name: str
    capability: tuple[int, int] | None
    shared_bytes: int
    starts_early: bool
    inline_ptx: bool
    launches: LaunchTable


def _gpu(name: str, capability: tuple[int, int], shared_kibibytes: int) -> Target:
    return Target(name, capability, shared_kibibytes * 1024, capability >= (9, 0), True, H200)


# By compute capability; shared memory from NVIDIA's table of technical specifications by compute capability.
TARGETS = (
    _gpu("A100", (8, 0), 163),
    _gpu("RTX 3090", (8, 6), 99),
    _gpu("Jetson Orin", (8, 7), 163),
    _gpu("RTX 4090, L4", (8, 9), 99),
    _gpu("H100, H200", (9, 0), 227),
    _gpu("B200", (10, 0), 227),
    _gpu("B300", (10, 3), 227),
    _gpu("Jetson Thor", (11, 0), 227),
    _gpu("RTX 5090", (12, 0), 99),
    _gpu("DGX Spark", (12, 1), 99),
)
# Triton's interpreter on a CPU, and tensors without a device. It runs one program at a time and no PTX.
INTERPRETER = Target("Triton's interpreter", None, H200.resident_bytes, False, False, H200)


@functools.cache
def find(device: str, index: int | None) -> Target | None:
    """The row of a device by its type and index ("cuda" without an index: the current device); None if it has none."""
    if device != "cuda":
        return INTERPRETER
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(index)
    return next((target for target in TARGETS if target.capability == capability), None)


def of(device: torch.device) -> Target:
    """The row of a device that the kernels run on."""
    target = find(device.type, device.index)
    assert target is not None, missing(device.index)
    return target


def missing(index: int | None) -> str:
    """Why a GPU has no row."""
    if torch.version.hip is not None:
        return "the kernels are for NVIDIA's GPUs, this PyTorch is built for AMD's"
    major, minor = torch.cuda.get_device_capability(index)
    known = ", ".join("{}.{}".format(*target.capability) for target in TARGETS if target.capability is not None)
    return f"the kernels know GPUs of compute capability {known}, this one has {major}.{minor}"


@constant
def max_small_batch(device: str, index: int | None) -> int:
    """See `LaunchTable`; 0 for a device without a row. torch.compile takes the answer for a constant."""
    target = find(device, index)
    return 0 if target is None else target.launches.max_small_batch


@constant
def max_normed_channels(device: str, index: int | None) -> int:
    """See `LaunchTable`; 0 for a device without a row. torch.compile takes the answer for a constant."""
    target = find(device, index)
    return 0 if target is None else target.launches.max_normed_channels
