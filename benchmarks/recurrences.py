"""Times recurrent layers at the shapes of public projects: the fused kernels against torch.nn, which runs cuDNN.

    python -m benchmarks.recurrences [--dtypes bfloat16 float16 tf32 float32] [--sweep] [--graphs]
        [--time-limit 115] [--output FILE]

A shape is rows x steps, input -> hidden, of one layer. Before a problem is timed, it is solved in float64: if an
output, a last state or a gradient of ours errs by more than twice torch's error in the same dtype and a rounding, the
row has no time. Times are medians of CUDA events around calls from Python, as modules are called, and with --graphs
also around replays of a CUDA graph of the same calls, where the GPU does not wait for Python.

"tf32" is float32 with TF32 allowed everywhere; a rounding is then that of TF32. "float32" has PyTorch's defaults, which
allow TF32 in torch's recurrent layers but neither in matrix products nor in our kernels.

The ratios of a row divide the time of torch's layer by ours; in 16 bits torch's time is that of the faster of its layer
in that dtype and in float32. `slower` lists the problems for which "auto" takes the slower one.

Processes compile the kernels first, for at most half of the time limit. The problems come in the order of their
importance, and those that the limit leaves no time for are listed in `dropped`.
"""

import argparse
import contextlib
import copy
import gc
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sequencer2d.nn as ours
from benchmarks.columns import Column, fixed, measured
from benchmarks.record import command_line, origin, write_result
from benchmarks.recurrence_shapes import SHAPES, SWEEP, Shape
from benchmarks.recurrence_timing import KINDS, time_layer
from sequencer2d.benchmark.timing import synchronize
from sequencer2d.errors import first_line
from sequencer2d.ops.precision import tf32

NAME, SCRIPT = "recurrences", "benchmarks.recurrences"
# The layers of torch.nn, and ours, by our name of the cell.
LAYERS = {"lstm": (nn.LSTM, ours.LSTM), "gru": (nn.GRU, ours.GRU), "rnn": (nn.RNN, ours.RNN)}
# The dtype of tensors, and the rounding that an error may have beside twice torch's, by the name of the arithmetic.
ARITHMETIC = {
    "bfloat16": (torch.bfloat16, torch.finfo(torch.bfloat16).eps),
    "float16": (torch.float16, torch.finfo(torch.float16).eps),
    "tf32": (torch.float32, 2.0**-10),
    "float32": (torch.float32, torch.finfo(torch.float32).eps),
}
# Steps of the check against float64. All rows take part, because their number chooses the launch.
CHECKED_STEPS = 24


RECURRENCES_COLUMNS = (
    Column("who", "who runs it"),
    *(Column(key, key) for key in ("rows", "steps", "channels", "hidden", "cell", "dtype")),
    Column("torch_forward_ms", "torch, forward, ms", fixed(2)),
    Column("torch_training_ms", "with backward", fixed(2)),
    Column("ours_forward_ms", "kernels, forward, ms", measured(fixed(2))),
    Column("ours_training_ms", "with backward", measured(fixed(2))),
    *(Column(f"{kind}_ratio", f"ratio, {kind}", measured(fixed(2))) for kind in KINDS),
    *(Column(f"{kind}_graph_ratio", f"as a graph, {kind}", measured(fixed(2))) for kind in KINDS),
)


@dataclass(frozen=True)
class Problem:
    """One row of the results: a shape, a dtype, where it runs, and the implementation that is compared with torch's."""

    shape: Shape
    dtype: str
    device: str
    implementation: str

    @property
    def tensor_dtype(self) -> torch.dtype:
        return ARITHMETIC[self.dtype][0]

    def switches(self) -> contextlib.AbstractContextManager[None]:
        """PyTorch's switches for TF32 as the arithmetic has them."""
        return tf32(True) if self.dtype == "tf32" else contextlib.nullcontext()

    @property
    def name(self) -> str:
        return f"{self.shape.who}, {self.dtype}"

    def layers(self, dtype: torch.dtype | None = None) -> tuple[nn.Module, Any]:
        """torch's layer and ours with the same weights."""
        torch.manual_seed(0)
        shape = self.shape
        options: dict[str, Any] = {"batch_first": True, "bidirectional": shape.bidirectional}
        options |= {"device": self.device, "dtype": dtype or self.tensor_dtype}
        kind, our_kind = LAYERS[shape.cell]
        theirs: nn.Module = kind(shape.channels, shape.hidden, **options)
        layer = our_kind(shape.channels, shape.hidden, implementation=self.implementation, **options)
        layer.load_state_dict(theirs.state_dict())
        return theirs, layer

    def inputs(self, steps: int) -> tuple[Tensor, Tensor]:
        """x, and the gradient of the output."""
        torch.manual_seed(1)
        options: dict[str, Any] = {"device": self.device, "dtype": self.tensor_dtype}
        shape = self.shape
        x = torch.randn(shape.rows, steps, shape.channels, **options)
        return x, torch.randn(shape.rows, steps, shape.hidden * (2 if shape.bidirectional else 1), **options)


def solve(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Output, last states and all gradients, the last states' being part of the loss."""
    leaf = x.detach().requires_grad_()
    out, last = layer(leaf)
    states = list(last) if isinstance(last, tuple) else [last]
    loss = (out * grad).sum() + sum(state.sum() for state in states)
    return [out.detach(), *(s.detach() for s in states), *torch.autograd.grad(loss, [leaf, *layer.parameters()])]


def check(problem: Problem) -> dict[str, Any]:
    """The worst error of ours against float64, relative to the norm, and its worst ratio to the budget."""
    theirs, layer = problem.layers()
    x, grad = problem.inputs(min(problem.shape.steps, CHECKED_STEPS))
    expected = solve(copy.deepcopy(theirs).double(), x.double(), grad.double())
    rounding = ARITHMETIC[problem.dtype][1]
    budgets = [2 * error(v, e) + rounding for v, e in zip(solve(theirs, x, grad), expected, strict=True)]
    try:
        found = [error(v, e) for v, e in zip(solve(layer, x, grad), expected, strict=True)]
    except Exception as failure:
        return {"failure": first_line(failure)}
    return {"error": max(found), "error_to_budget": max(f / b for f, b in zip(found, budgets, strict=True))}


def error(value: Tensor, expected: Tensor) -> float:
    return ((value.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()


def measure(problem: Problem, repeats: int, graphs: bool = False) -> dict[str, Any]:
    """One row of the results. What was not measured is None."""
    checked = {"error": None, "error_to_budget": None, "failure": None, **check(problem)}
    theirs, layer = problem.layers()
    x, grad = problem.inputs(problem.shape.steps)
    times = {"torch": time_layer(theirs, x, grad, problem.device, repeats, graphs)}
    if problem.tensor_dtype != torch.float32:
        plain, _ = problem.layers(torch.float32)
        times["torch_float32"] = time_layer(
            plain, x.float(), grad.float(), problem.device, max(repeats // 2, 1), graphs
        )
    if checked["failure"] is None and checked["error_to_budget"] <= 1:
        times["ours"] = time_layer(layer, x, grad, problem.device, repeats, graphs)
    layer.set_implementation("auto")
    row = {**asdict(problem.shape), "dtype": problem.dtype, **checked}
    for kind in KINDS:
        for timed in (kind, f"{kind}_graph"):
            for name in ("torch", "torch_float32", "ours"):
                row[f"{name}_{timed}_ms"] = times[name][timed] if name in times else None
            row[f"{timed}_ratio"] = ratio(times, timed)
        with torch.set_grad_enabled(kind == "training"):
            row[f"auto_{kind}"] = layer.choose_implementation(x)
    return row


def ratio(times: dict[str, dict[str, float | None]], timed: str) -> float | None:
    """The least of torch's times by ours; None if one of them is missing."""
    theirs, mine = [found[timed] for name, found in times.items() if name != "ours"], times.get("ours", {}).get(timed)
    known = [time for time in theirs if time is not None]
    return min(known) / mine if mine is not None and len(known) == len(theirs) else None


def slower_choices(rows: list[dict[str, Any]], tolerance: float = 1.1) -> list[str]:
    """The problems for which "auto" takes the slower implementation in the same dtype."""
    found = []
    for row in rows:
        for kind in KINDS:
            chosen, ours_ms, torch_ms = row[f"auto_{kind}"], row[f"ours_{kind}_ms"], row[f"torch_{kind}_ms"]
            if ours_ms is None:
                continue
            taken, other = (ours_ms, torch_ms) if chosen == "triton" else (torch_ms, ours_ms)
            if taken > tolerance * other:
                found.append(f"{row['who']}, {row['dtype']}, {kind}: {chosen} {taken:.2f} ms, the other {other:.2f} ms")
    return found


def compile_kernels(problem: Problem) -> None:
    """Run a problem's kernels over two steps, so that other processes find their binaries on disk."""
    with problem.switches():
        _, layer = problem.layers()
        x, grad = problem.inputs(2)
        with torch.no_grad():
            layer(x)
        solve(layer, x, grad)
        synchronize(torch.device(problem.device))


def compile_all(problems: list[Problem], processes: int, seconds: float) -> None:
    """Compile all problems' kernels in parallel. Those not done after some seconds compile when they are timed."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=spawn)
    jobs = {pool.submit(compile_kernels, problem): problem for problem in problems}
    done, pending = wait(jobs, timeout=seconds)
    for job in done:
        if (failure := job.exception()) is not None:
            print(f"{jobs[job].name}: {first_line(failure)}", flush=True)
    print(f"compiled: {len(done)} of {len(jobs)}; not in time: {[jobs[job].name for job in pending]}", flush=True)
    # Processes that still compile must not disturb the timing.
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=False, cancel_futures=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "tf32", "float32"], choices=ARITHMETIC)
    parser.add_argument("--sweep", action="store_true", help="time a sweep over sizes, not the shapes of projects")
    parser.add_argument("--shapes", type=int, help="take only the first N shapes")
    parser.add_argument("--cell", choices=LAYERS, help="take the shapes of one cell")
    parser.add_argument("--shrink", type=int, default=1, help="divide all sizes by this, to try the script on a CPU")
    parser.add_argument("--implementation", default="triton", help="what is compared with torch's layers")
    parser.add_argument("--graphs", action="store_true", help="time also replays of CUDA graphs of the same calls")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--processes", type=int, default=min(14, os.cpu_count() or 1), help="that compile; 0 for none")
    parser.add_argument("--time-limit", type=float, default=115, help="seconds after which no other problem begins")
    parser.add_argument("--output", type=Path, help="default: in benchmarks/results, recurrences[_sweep].json")
    args = parser.parse_args(arguments)
    begin = time.monotonic()
    name = f"{NAME}_sweep" if args.sweep else NAME
    shapes = [shape for shape in (SWEEP if args.sweep else SHAPES)[: args.shapes] if args.cell in (None, shape.cell)]
    sizes = ("rows", "steps", "channels", "hidden")
    shapes = [replace(s, **{k: max(getattr(s, k) // args.shrink, 1) for k in sizes}) for s in shapes]
    problems = [Problem(s, dtype, args.device, args.implementation) for dtype in args.dtypes for s in shapes]
    if args.device == "cuda" and args.processes:
        compile_all(problems, args.processes, args.time_limit / 2)
    rows: list[dict[str, Any]] = []
    for problem in problems:
        if time.monotonic() - begin > args.time_limit:
            break
        with problem.switches():
            rows.append(measure(problem, args.repeats, args.graphs))
        print(f"{time.monotonic() - begin:.0f} s {rows[-1]}", flush=True)
        dropped = [problem.name for problem in problems[len(rows) :]]
        result = {**origin(name, SCRIPT, command_line(SCRIPT, arguments)), "rows": rows}
        write_result({**result, "slower": slower_choices(rows), "dropped": dropped}, args.output)
        gc.collect()
    print("\n".join(slower_choices(rows)) or "auto takes nothing that was slower")
    print(f"not measured: {[problem.name for problem in problems[len(rows) :]]}")


if __name__ == "__main__":
    main()
