"""Launches kernels twice on a GPU that is not there, through Triton and through a handle, and says what reached it.

    python -m tests.ops.repeat_launches

A program of its own, because Triton decides while kernels are imported whether they are compiled or interpreted, and
because it runs with other Tritons, too. The answer is a JSON object: "triton", its version, and "kernels", for each the
two launches as [function, grid, stream, arguments], in which a tensor has the place of its first occurrence.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton

from sequencer2d.ops.kernels import launching, prepared, triton_block_launch, triton_launch
from sequencer2d.ops.launches import RegisterLaunch, SharedLaunch
from sequencer2d.ops.recurrence import Recurrence
from tests.ops.compile_kernels import OfflineDriver

SCANS, TOKENS, HIDDEN, STREAM = (0, 1, 2, 3), (2, 3, 5), 16, 7
LAUNCHED: list[tuple[Any, ...]] = []
TENSORS: list[int] = []
"""How many tensors each launch of `run_all` begins with; a handle passes their addresses."""


class Launcher:
    """Stands for the function that Triton compiles to start a binary."""

    def __init__(self, src: Any, metadata: Any) -> None:
        self.name = metadata.name

    def __call__(self, x: int, y: int, z: int, stream: int, function: int, *rest: Any) -> None:
        # packed metadata, launch metadata and two hooks come before the kernel's arguments
        LAUNCHED.append((self.name, [x, y, z], stream, rest[4:]))


class Driver(OfflineDriver):
    """A driver that loads binaries and notes what is launched."""

    launcher_cls = Launcher
    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": 232448},
        # module, function, registers, spills and, from Triton 3.4 on, the most threads
        load_binary=lambda *_: (1, 2, 32, 0, 1024)[: 4 if triton.__version__ < "3.4" else 5],
        unload_module=lambda module: None,
    )

    def get_current_stream(self, device: int) -> int:
        return STREAM


def run_all() -> None:
    """Launch each kernel once, with tensors of its own."""
    gates = torch.zeros(*TOKENS, 4 * 4 * HIDDEN, dtype=torch.float16)
    weight = torch.zeros(4, 4 * HIDDEN, HIDDEN, dtype=torch.float16)
    recurrence = Recurrence(gates, weight, None, SCANS, "lstm", approximate_tanh=False, precision="tf32x3")
    shared = (SharedLaunch(16, 16, 1),)
    out, cells = triton_launch.launch_forward(recurrence, shared, save_cells=True)
    triton_launch.launch_backward(recurrence, shared, out, out, cells)
    triton_launch.launch_weight_gradient(recurrence, gates, out)
    try:
        from sequencer2d.ops.kernels import gluon_launch
    except (ImportError, AttributeError):
        pass  # a Triton without it
    else:
        both = {"scans": SCANS, "launches": (RegisterLaunch(16, 2, 2, 1),), "approximate_tanh": False}
        out, cells, activations = gluon_launch.launch_forward(gates, weight, save=True, **both)
        gluon_launch.launch_backward(out, activations, weight, cells, **both)
        both["launches"] = (RegisterLaunch(16, 2, 2, 1, register_tiles=0, shared_tiles=1),)
        gluon_launch.launch_forward(gates, weight, save=False, **both)
        gluon_launch.launch_backward(out, activations, weight, cells, **both)
    run_between_products()
    try:
        from sequencer2d.ops.kernels import triton_linear_launch
    except (ImportError, AttributeError):
        return
    x, vector = torch.zeros(16, 16, dtype=torch.float16), torch.zeros(16, dtype=torch.float16)
    triton_linear_launch.launch_normed_linear(
        x, vector, x, vector, 1e-6, gelu=True, approximate_tanh=False, early_start=True
    )
    triton_linear_launch.launch_add_linear(x, x.clone(), x.clone(), early_start=True)


def run_between_products() -> None:
    """Launch each kernel that stands between the products of a block in training."""
    x, vector = torch.zeros(16, 16, dtype=torch.float16), torch.zeros(16)
    mask, sums = torch.zeros(2, dtype=torch.float16), triton_block_launch.new_sums(x, 96)
    total, _, mean, scale = triton_block_launch.add_norm(x, x.clone(), mask, vector, vector.clone(), 1e-6)
    triton_block_launch.add_norm_backward(x, x.clone(), (total, mean, scale), vector, mask, sums, 0, 32)
    triton_block_launch.apply_mask(x, mask, sums, 0)
    triton_block_launch.gelu_backward_(x, x.clone(), sums, 0)


def described(arguments: tuple[Any, ...], tensors: int) -> list[str]:
    """Texts of arguments. Each of the first `tensors` is named by the place where the same one stands first."""
    first = arguments[:tensors]
    places = [argument.data_ptr() if isinstance(argument, torch.Tensor) else argument for argument in first]
    return [*(f"tensor {places.index(place)}" for place in places), *map(repr, arguments[tensors:])]


def launches(plain: bool) -> list[list[Any]]:
    """What `run_all` launches. plain: nothing is repeated, and how many tensors each launch has is noted."""
    LAUNCHED.clear()
    if plain:
        TENSORS.clear()
    calls: list[str] = []
    run = launching.run_kernel

    def noted(kernel: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(kernel.fn.__name__)
        return run(kernel, *arguments, **options)

    with mock.patch.object(launching, "run_kernel", noted):
        run_all()
    assert bool(calls) == plain, calls
    if plain:
        TENSORS.extend(sum(isinstance(argument, torch.Tensor) for argument in launch[-1]) for launch in LAUNCHED)
    return [
        [name, grid, stream, described(arguments, tensors)]
        for (name, grid, stream, arguments), tensors in zip(LAUNCHED, TENSORS, strict=True)
    ]


def main() -> None:
    triton.runtime.driver.set_active(Driver(90))
    with mock.patch.object(torch._C, "_cuda_getCurrentRawStream", create=True, return_value=STREAM):
        first = launches(plain=True)
        second = launches(plain=False)
        prepared._HANDLES.clear()
        launches(plain=True)  # nothing is kept: launched through Triton again
    json.dump({"triton": triton.__version__, "kernels": list(zip(first, second, strict=True))}, sys.stdout)


if __name__ == "__main__":
    main()
