"""Compiles the fused kernels for a GPU that need not be there, and says what they take of it.

    echo '{"capability": 90, "shared": 232448, "cases": [{"hidden": 96, ...}]}' | python -m tests.ops.compile_kernels

A program of its own, because Triton decides while kernels are imported whether they are compiled or interpreted, and
because `tests.ops.tritons` runs it with other Tritons. The answer is a JSON object: "problems", what `devices` says of
each family of kernels, and "results", one for each case.
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.runtime.errors import OutOfResources

from sequencer2d.ops import CELLS, compile_errors, devices, linear_kernels, scan_kernels, streamed_scans, tuning
from sequencer2d.ops.kernels import launching, triton_block_launch, triton_launch

try:
    from sequencer2d.ops.kernels import gluon_launch
except (ImportError, AttributeError):
    gluon_launch = None  # a Triton without Gluon

SCANS = (0, 1, 2, 3)


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


class Compiler:
    """Stands for launches: compiles a kernel and, as on a GPU, refuses it if it takes too much shared memory."""

    def __init__(self, shared: int, measured: list[str]) -> None:
        self.shared, self.measured = shared, measured
        self.refused: dict[str, int] = {}
        self.spills: dict[str, int] = {}
        self.binaries: dict[str, set[str]] = {}

    def run(self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
        name = f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"
        values = [a.dtype if isinstance(a, torch.Tensor) else a for a in arguments]
        compiled = kernel.warmup(*values, grid=grid, enable_fp_fusion=True, **options)
        if options.get("launch_pdl"):
            check_order(compiled.asm["ptx"])
        self.refused.setdefault(name, 0)
        is_new = compiled.hash not in self.binaries.setdefault(name, set())
        self.binaries[name].add(compiled.hash)
        if compiled.metadata.shared > self.shared:
            self.refused[name] += 1
            raise OutOfResources(compiled.metadata.shared, self.shared, "shared memory")
        if is_new and name in self.measured:
            self.spills[name] = max(self.spills.get(name, 0), spilled_bytes(compiled))


def check_order(ptx: str) -> None:
    """What starts early waits for the launch before it ahead of its first asynchronous copy and its first store."""
    before, _, after = ptx.partition("griddepcontrol.wait")
    assert after, "no griddepcontrol.wait"
    too_early = re.findall(r"\b(?:cp\.async\.c|st\.global|red\.|atom\.)\S*", before)
    assert not too_early, f"{too_early} before griddepcontrol.wait"


def spilled_bytes(compiled: Any) -> int:
    """What a thread of a kernel writes to local memory because it is out of registers, by ptxas."""
    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    architecture = re.search(r"\.target (sm_\w+)", compiled.asm["ptx"])
    assert architecture is not None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(compiled.asm["ptx"])
        command = [str(ptxas), "-v", f"--gpu-name={architecture[1]}", str(source), "-o", str(source) + ".cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    stores = re.search(r"(\d+) bytes spill stores", report)
    assert stores is not None, report
    return int(stores[1])


def compile_case(grid: list[int], hidden: int, cell: str, dtype_name: str) -> None:
    """Run the launches of one problem, tokens (B, H, W), as the operators do."""
    dtype, gates_count = getattr(torch, dtype_name), CELLS[cell].gates
    gates = torch.empty(*grid, len(SCANS) * gates_count * hidden, dtype=dtype, device="cuda:0")
    weight = gates.new_empty(len(SCANS), gates_count * hidden, hidden)
    bias_n = gates.new_empty(len(SCANS), hidden) if cell == "gru" else None
    problem = (weight, bias_n, SCANS, cell)
    scan_kernels.scan(gates, *problem, save_for_backward=False, weight_is_final=True)
    train(gates, problem)
    train_sequences(gates, weight, bias_n, cell)
    compile_between_products(gates.new_empty(64, 4 * hidden))
    if scan_kernels.runs_in_registers(gates, weight, cell):
        compile_products(gates, 4 * hidden)
        with mock.patch.object(scan_kernels, "runs_in_registers", return_value=False):  # what runs on other GPUs
            scan_kernels.scan(gates, *problem, save_for_backward=False)
            train(gates, problem)


def train(gates: torch.Tensor, problem: tuple[Any, ...]) -> None:
    """Both of forward and backward, with gates stored and recomputed."""
    out, cells, activations = scan_kernels.scan(gates, *problem, save_for_backward=True)
    has_activations = activations.dim() == gates.dim()
    saved = activations if has_activations else gates
    scan_kernels.scan_backward(
        out, saved, *problem[:2], out, cells, *problem[2:], gates_are_activations=has_activations
    )
    scan_kernels.recompute_scan_backward(out, gates, *problem[:2], out, *problem[2:])


def train_sequences(gates: torch.Tensor, weight: torch.Tensor, bias_n: torch.Tensor | None, cell: str) -> None:
    """Both of forward and backward with the states after the last step and, apart, before the first."""
    scans, rows = (0, 1), gates.shape[0] * gates.shape[2]
    gates = gates.new_empty(*gates.shape[:-1], gates.shape[-1] // 2)
    half = [None if tensor is None else tensor.new_empty(2, *tensor.shape[1:]) for tensor in (weight, bias_n)]
    problem = (*half, scans, cell)
    first = gates.new_empty(2, rows, weight.shape[-1])
    last = first if CELLS[cell].has_c else None
    for states in ({"last": last}, {"first": first}):
        out, cells, activations = scan_kernels.scan(gates, *problem, save_for_backward=True, **states)
        has_activations = activations.dim() == gates.dim()
        saved = activations if has_activations else gates
        grads = {"grad_last": last} if "last" in states else {"first": first, "grad_first": first}
        scan_kernels.scan_backward(
            out, saved, *problem[:2], out, cells, *problem[2:], gates_are_activations=has_activations, **grads
        )


def compile_products(gates: torch.Tensor, channels: int) -> None:
    """Compile the products for small batches of a block with so many channels."""
    if devices.problem("products", "cuda", 0) is not None:
        return
    x, hidden = (gates.new_empty(1, 16, 16, size) for size in (channels, 3 * channels))
    weight, bias = gates.new_empty(3 * channels, channels), gates.new_empty(3 * channels)
    linear_kernels.normed_linear(x, x, weight, bias, 1e-6, gelu=True)
    linear_kernels.add_linear(x, hidden, gates.new_empty(channels, 3 * channels))


def compile_between_products(x: torch.Tensor) -> None:
    """Compile what a block in training does between its products, for tokens (T, C)."""
    channels, vector = x.shape[1], x.new_empty(x.shape[1], dtype=torch.float32)
    sums = triton_block_launch.new_sums(x, 9 * channels)
    for branch, mask in ((None, None), (x, None), (x, x.new_empty(2))):
        total, _, *saved = triton_block_launch.add_norm(x, branch, mask, vector, vector, 1e-6)
        triton_block_launch.add_norm_backward(
            x, x, (total, *saved), vector, mask, sums, 0, None if branch is None else 2 * channels
        )
        triton_block_launch.apply_mask(x, mask, sums, 0)
    expanded = x.new_empty(x.shape[0], 3 * channels)
    triton_block_launch.gelu_backward_(expanded, expanded, sums, 0)


@contextlib.contextmanager
def gpu(capability: int) -> Iterator[None]:
    """Pretend to have a GPU, as far as kernels are chosen by it."""
    replaced = {
        "is_available": lambda: True,
        "get_device_capability": lambda *_: divmod(capability, 10),
        "current_device": lambda: 0,
        "device": lambda *_: contextlib.nullcontext(),
    }
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        # They import the function by its name.
        for module in (tuning, triton_launch, triton_block_launch):
            stack.enter_context(mock.patch.object(module, "multiprocessors", return_value=132))
        stack.enter_context(mock.patch.object(scan_kernels, "aligned", torch.Tensor.contiguous))
        stack.enter_context(mock.patch.object(scan_kernels, "add_products_of_first_steps"))
        # These start the driver even for tensors without values.
        for name in ("copy_", "zero_"):
            stack.enter_context(mock.patch.object(torch.Tensor, name, lambda tensor, *_: tensor))
        for name in ("pack_for_forward", "pack_for_backward"):
            if gluon_launch is not None:
                stack.enter_context(mock.patch.object(gluon_launch, name, lambda weight, _: weight))
        stack.enter_context(mock.patch.object(streamed_scans, "recurrent_products", products_without_values))
        stack.enter_context(mock.patch.object(streamed_scans, "weight_gradient"))
        yield


def products_without_values(before: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return before.new_empty(*before.shape[:-1], weight.shape[0] * weight.shape[1])


def compile_all(order: dict[str, Any]) -> dict[str, Any]:
    results = []
    with gpu(order["capability"]):
        problems = {family: devices.problem(family, "cuda", 0) for family in tuple(devices._MODULES)}
        for case in order["cases"]:
            compiler = Compiler(order["shared"], order.get("measured", []))
            launching._REFUSED.clear()
            with run_by(compiler), FakeTensorMode():
                try:
                    compile_case(**case)
                    binaries = {name: sorted(hashes) for name, hashes in compiler.binaries.items()}
                    results.append({"refused": compiler.refused, "spills": compiler.spills, "binaries": binaries})
                except Exception as error:
                    results.append({"error": compile_errors.first_line(error)})
    return {"triton": triton.__version__, "problems": problems, "results": results}


@contextlib.contextmanager
def run_by(compiler: Compiler) -> Iterator[None]:
    """Have a compiler take all launches."""
    with mock.patch.object(launching, "run_kernel", compiler.run):
        yield


def main() -> None:
    order = json.load(sys.stdin)
    triton.runtime.driver.set_active(OfflineDriver(order["capability"]))
    json.dump(compile_all(order), sys.stdout)


if __name__ == "__main__":
    main()
