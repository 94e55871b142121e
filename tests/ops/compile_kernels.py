"""Compiles the fused kernels for a GPU that need not be there.

    echo '{"capability": 90, "shared": 232448, "cases": [{"hidden": 96, ...}]}' | python -m tests.ops.compile_kernels

A program of its own, because Triton decides while kernels are imported whether they are compiled or interpreted. Each
case runs the launches of one problem up to the point where a GPU would be needed; the answer is a JSON list.
"""

import functools
import json
import re
import sys
from typing import Any

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.runtime.errors import OutOfResources

from sequencer2d.ops import CELLS, launching, triton_backward, triton_forward, tuning
from sequencer2d.ops import triton_common as common

SCANS = (0, 1, 2, 3)
KERNELS = {
    "forward": (triton_forward, "forward_kernel"),
    "backward": (triton_backward, "backward_kernel"),
    "weight gradient": (triton_backward, "weight_gradient_kernel"),
}
if launching._has_gluon():
    from sequencer2d.ops import gluon_backward, gluon_forward, triton_linear

    KERNELS["stationary forward"] = (gluon_forward, "forward_kernel")
    KERNELS["stationary backward"] = (gluon_backward, "backward_kernel")
    KERNELS["normed linear"] = (triton_linear, "normed_linear_kernel")
    KERNELS["added linear"] = (triton_linear, "add_linear_kernel")
STATIONARY_LAUNCHES = ("forward", "training", "backward")


class OfflineDriver:
    """What Triton asks of a GPU in order to compile for it."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


class CompileOnly:
    """Stands for a kernel: a launch compiles it and, as on a GPU, is refused if it takes too much shared memory."""

    def __init__(self, kernel: Any, limit: int) -> None:
        self.kernel, self.limit, self.refused = kernel, limit, 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*arguments: Any, **options: Any) -> None:
            values = [a.dtype if isinstance(a, torch.Tensor) else a for a in arguments]
            compiled = self.kernel.warmup(*values, grid=grid, **options)
            if options.get("launch_pdl"):
                check_order(compiled.asm["ptx"])
            shared = compiled.metadata.shared
            if shared > self.limit:
                self.refused += 1
                raise OutOfResources(shared, self.limit, "shared memory")

        return launch


def check_order(ptx: str) -> None:
    """What starts early waits for the launch before it ahead of its first asynchronous copy and its first store."""
    before, _, after = ptx.partition("griddepcontrol.wait")
    assert after, "no griddepcontrol.wait"
    too_early = re.findall(r"\b(?:cp\.async\.c|st\.global|red\.|atom\.)\S*", before)
    assert not too_early, f"{too_early} before griddepcontrol.wait"


def compile_case(grid: list[int], hidden: int, cell: str, dtype_name: str, early: bool) -> dict[str, int]:
    """Compile the kernels for tokens (B, H, W); how many launches of each were refused before one fitted.

    early: whether the GPU can start a launch before the one before has ended.
    """
    for name in KERNELS:
        _kernel(name).refused = 0
    dtype, gates_count = getattr(torch, dtype_name), CELLS[cell].gates
    cell_options = {"scans": SCANS, "cell": cell, "precision": "tf32x3"}
    options = {**cell_options, "fast": dtype is torch.bfloat16}
    gates = torch.empty(*grid, len(SCANS) * gates_count * hidden, dtype=dtype, device="cuda:0")
    weight = gates.new_empty(len(SCANS), gates_count * hidden, hidden)
    bias_n = gates.new_empty(len(SCANS), hidden) if cell == "gru" else None
    if launching.stationary(gates, weight, cell):
        compile_stationary(gates, weight, options["fast"], early)
        compile_products(gates, 4 * hidden, options["fast"], early)
    launches = {kernel: tuning.choose(kernel, gates, weight, SCANS) for kernel in ("forward", "backward")}
    common._TOO_LARGE.clear()
    out, cells = triton_forward.launch_forward(
        gates, weight, bias_n, save_cells=cell == "lstm", launches=launches["forward"], **options
    )
    _, grad_rec = triton_backward.launch_backward(
        torch.empty_like(out), gates, weight, bias_n, out, cells, launches=launches["backward"], **options
    )
    triton_backward.launch_weight_gradient(grad_rec, out, hidden=hidden, **cell_options)
    return {name: _kernel(name).refused for name in KERNELS}


def compile_stationary(gates: torch.Tensor, weight: torch.Tensor, fast: bool, early: bool) -> None:
    """Compile the kernels with W_hh in registers."""
    common_options = {"scans": SCANS, "fast": fast}
    launches = {kernel: tuning.choose_stationary(kernel, gates, weight, SCANS) for kernel in STATIONARY_LAUNCHES}
    forward = functools.partial(gluon_forward.launch_forward, gates, weight, **common_options)
    forward(save=False, early=early, launches=launches["forward"])
    out, cells, activations = forward(save=True, early=False, launches=launches["training"])
    gluon_backward.launch_backward(out, activations, weight, cells, launches=launches["backward"], **common_options)


def compile_products(gates: torch.Tensor, channels: int, fast: bool, early: bool) -> None:
    """Compile the products for few rows of a block with so many channels."""
    x, hidden = (gates.new_empty(1, 16, 16, size) for size in (channels, 3 * channels))
    weight, bias = gates.new_empty(3 * channels, channels), gates.new_empty(3 * channels)
    triton_linear.launch_normed_linear(x, x, weight, bias, 1e-6, gelu=True, fast=fast, early=early)
    triton_linear.launch_add_linear(x, hidden, gates.new_empty(channels, 3 * channels), early=early)


def _kernel(name: str) -> Any:
    module, attribute = KERNELS[name]
    return getattr(module, attribute)


def main() -> None:
    order = json.load(sys.stdin)
    capability = order["capability"]
    triton.runtime.driver.set_active(OfflineDriver(capability))
    tuning.multiprocessors = lambda _: 132
    triton_backward.multiprocessors = lambda _: 132
    for name, (module, attribute) in KERNELS.items():
        setattr(module, attribute, CompileOnly(_kernel(name), order["shared"]))
    results = []
    with FakeTensorMode():
        for case in order["cases"]:
            try:
                results.append(compile_case(**case, early=capability >= 90))
            except Exception as error:
                cause = error
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                results.append({"error": f"{type(cause).__name__}: {cause}"})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
