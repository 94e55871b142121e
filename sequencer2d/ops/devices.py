"""What a device and the installed Triton can run. Kernels are imported and compiled to find out; versions are not read.

There are four families of kernels: "shared" (W_hh in shared memory) and "blocks" (between the products of a block in
training) need Triton's language, "registers" (W_hh in registers) needs Gluon as well, "products" needs launches that
can start early. Each family compiles its kernels once, at the smallest size, before it is used. A family that does not
compile gives way to the next implementation.
"""

import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sequencer2d.ops import targets
from sequencer2d.ops.compile_errors import first_line, triton_version


def interpreting() -> bool:
    """Whether Triton's interpreter runs the kernels, on a CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@targets.constant
def problem(family: str, device: str, index: int | None) -> str | None:
    """Why a family of kernels cannot run on a device; None if it can. torch.compile takes the answer for a constant."""
    return _ask(family, device, index)


@functools.cache
def _ask(family: str, device: str, index: int | None) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device == "cpu" and interpreting():
        # The interpreter runs Triton's language but not Gluon's.
        return "Triton's interpreter does not run it" if family == "registers" else _import(family)
    if device != "cuda":
        return f"the input is on {device}, it needs a CUDA device"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if targets.find(device, index) is None:
        reason = targets.missing(index)
        if family == "shared":
            warnings.warn(f"recurrences run the vendor's kernels: {reason}", RuntimeWarning, stacklevel=2)
        return reason
    return _import(family) or _compile(family, index)


def starts_early(device: torch.device) -> bool:
    """Whether a launch can start before the previous one has ended, and wait for that end itself."""
    return targets.of(device).starts_early


def approximates_tanh(tensor: Tensor) -> bool:
    """Whether the kernels use the hardware's tanh: its error, 2^-11, is below the rounding of bf16 alone."""
    return tensor.dtype is torch.bfloat16 and targets.of(tensor.device).inline_ptx


def current(tensor: Tensor) -> torch.cuda.device:
    """A context in which the tensor's device is the current one, on which Triton launches. No effect on a CPU."""
    return torch.cuda.device(tensor.device.index if tensor.is_cuda else -1)


def _import(family: str) -> str | None:
    """Import a family's kernels. An older Triton lacks some of the names that they import."""
    try:
        importlib.import_module(f"sequencer2d.ops.kernels.{_MODULES[family]}")
    except (ImportError, AttributeError) as error:
        return f"Triton {triton_version()} lacks what it needs: {error}"
    return None


def _compile(family: str, index: int | None) -> str | None:
    """Compile a family's kernels at their smallest size, without running them. Triton caches the result on disk."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    device = torch.device("cuda", torch.cuda.current_device() if index is None else index)
    try:
        with torch.cuda.device(device), FakeTensorMode():
            _COMPILE[family](device)
    except Exception as error:
        reason = f"its kernels do not compile with Triton {triton_version()}: {first_line(error)}"
        warnings.warn(f"the kernels {family!r} of the recurrence give way: {reason}", RuntimeWarning, stacklevel=2)
        return reason
    return None


def _operands(device: torch.device) -> tuple[Tensor, Tensor]:
    """Gates and W_hh of one token, four scans and 16 hidden units."""
    gates = torch.empty(1, 1, 1, 4 * 4 * 16, dtype=torch.float16, device=device)
    return gates, gates.new_empty(4, 4 * 16, 16)


def _compile_shared(device: torch.device) -> None:
    from sequencer2d.ops.kernels import triton_launch
    from sequencer2d.ops.launches import SharedLaunch
    from sequencer2d.ops.recurrence import Recurrence

    recurrence = Recurrence(*_operands(device), None, (0, 1, 2, 3), "lstm", False, "tf32x3")
    launches = (SharedLaunch(16, 16, 1),)
    out, cells = triton_launch.launch_forward(recurrence, launches, save_cells=True)
    triton_launch.launch_backward(recurrence, launches, out, out, cells)
    triton_launch.launch_weight_gradient(recurrence, recurrence.gates, out)


def _compile_registers(device: torch.device) -> None:
    from sequencer2d.ops.kernels import gluon_launch
    from sequencer2d.ops.launches import RegisterLaunch

    gates, weight = _operands(device)
    options: dict[str, Any] = {
        "scans": (0, 1, 2, 3),
        "approximate_tanh": False,
        "launches": (RegisterLaunch(16, 2, 2, 1),),
    }
    gluon_launch.launch_forward(gates, weight, save=False, early_start=starts_early(device), **options)
    out, cells, activations = gluon_launch.launch_forward(gates, weight, save=True, **options)
    gluon_launch.launch_backward(out, activations, weight, cells, **options)


def _compile_products(device: torch.device) -> None:
    from sequencer2d.ops.kernels import triton_linear_launch

    x, early_start = torch.empty(16, 16, dtype=torch.float16, device=device), starts_early(device)
    vector = x.new_empty(16)
    triton_linear_launch.launch_normed_linear(
        x, vector, x, vector, 1e-6, gelu=True, approximate_tanh=False, early_start=early_start
    )
    triton_linear_launch.launch_add_linear(x, x, x, early_start=early_start)


def _compile_blocks(device: torch.device) -> None:
    from sequencer2d.ops.kernels import triton_block_launch

    x, mask = torch.empty(16, 16, dtype=torch.float16, device=device), torch.empty(1, device=device)
    vector = torch.empty(16, device=device)
    sums = triton_block_launch.new_sums(x, 96)
    for factor in (None, mask.half()):
        total, _, *saved = triton_block_launch.add_norm(x, x, factor, vector, vector, 1e-6)
        triton_block_launch.add_norm_backward(x, x, (total, saved[0], saved[1]), vector, factor, sums, 0, 32)
        triton_block_launch.apply_mask(x, factor, sums, 0)
    triton_block_launch.gelu_backward_(x, x, sums, 0)


# The module that imports all of a family's kernels, and the function that compiles them.
_MODULES = {
    "shared": "triton_launch",
    "registers": "gluon_launch",
    "products": "triton_linear_launch",
    "blocks": "triton_block_launch",
}
_COMPILE: dict[str, Callable[[torch.device], None]] = {
    "shared": _compile_shared,
    "registers": _compile_registers,
    "products": _compile_products,
    "blocks": _compile_blocks,
}
