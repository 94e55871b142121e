"""Times launches of the scans that keep W_hh in shared memory or read it at each step: GRU, RNN, and the LSTM in fp32.

    python -m benchmarks.kernels.cells [--time-limit 60] [--output FILE]

A problem is a cell, a dtype, hidden units, sequences and steps, in two directions. Both forward, which keeps what
backward needs, and backward with the gradient of W_hh are run with each candidate: as the table has it ("table"), with
a launch of its own, or by the kernels that read W_hh at each step ("streamed"). Each is compared with float64 over a
few steps before it is timed, many in a CUDA graph. fp32 is computed in TF32.

Processes compile first. A candidate that the device has no room for, or that does not compile, is named with the
reason.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from benchmarks.kernels.recurrence import error, milliseconds
from benchmarks.record import command_line, origin, write_result
from sequencer2d.errors import first_line
from sequencer2d.ops import CELLS, reference, scan_kernels, streamed_scans, tuning
from sequencer2d.ops.launches import SharedLaunch, StreamedLaunch
from sequencer2d.ops.precision import tf32

NAME, SCRIPT = "kernel-cells", "benchmarks.kernels.cells"
SCANS = (0, 1)
CHECKED_STEPS = 6
BUDGET = {torch.bfloat16: 0.02, torch.float32: 0.005}


class Problem(NamedTuple):
    """What is run: of which cell, in which dtype, and how much of it."""

    cell: str
    dtype: torch.dtype
    hidden: int
    rows: int
    steps: int


class Trial(NamedTuple):
    """A kernel of a problem with a launch; None for the table's."""

    problem: Problem
    kernel: str
    launch: SharedLaunch | StreamedLaunch | None


def shared(chunk: int, warps: int, *, resident: bool = True, stages: int = 2, first: bool = True) -> SharedLaunch:
    return SharedLaunch(16, chunk, warps, resident=resident, stages=stages, matmuls_first=first)


def backward(chunk: int, warps: int, inputs: int, *, resident: bool, stages: int, rows: int = 16) -> SharedLaunch:
    return SharedLaunch(
        rows, chunk, warps, resident=resident, stages=stages, product_inputs=inputs, matmuls_first=False
    )


DPRNN_GRU = Problem("gru", torch.bfloat16, 128, 256, 100)
DPRNN_RNN = Problem("rnn", torch.bfloat16, 128, 256, 100)
BANDIT = Problem("gru", torch.bfloat16, 256, 4136, 64)
FLASH = Problem("lstm", torch.float32, 64, 16, 1024)
NARROW = Problem("lstm", torch.float32, 96, 64, 64)
DPRNN = Problem("lstm", torch.float32, 128, 256, 100)
CANDIDATES: dict[tuple[Problem, str], list[SharedLaunch | StreamedLaunch]] = {
    (DPRNN_GRU, "forward"): [shared(64, 8), shared(128, 8), shared(64, 4)],
    (DPRNN_GRU, "backward"): [
        backward(64, 8, 64, resident=False, stages=1),
        backward(64, 8, 128, resident=False, stages=1),
        backward(128, 8, 128, resident=False, stages=1),
        backward(32, 8, 128, resident=False, stages=2),
        StreamedLaunch(16, 32, 32, 8, 3),
        StreamedLaunch(16, 64, 64, 8, 3),
    ],
    (DPRNN_RNN, "forward"): [shared(64, 8), shared(128, 8), shared(128, 4)],
    (DPRNN_RNN, "backward"): [
        backward(64, 8, 64, resident=True, stages=2),
        backward(128, 8, 128, resident=True, stages=2),
        backward(128, 4, 128, resident=True, stages=2),
    ],
    (BANDIT, "forward"): [StreamedLaunch(64, 32, 32, 8, 3), StreamedLaunch(64, 64, 64, 8, 3), shared(64, 8)],
    (BANDIT, "backward"): [StreamedLaunch(64, 32, 32, 8, 3), StreamedLaunch(64, 64, 64, 8, 3)],
    (FLASH, "forward"): [
        shared(32, 4, resident=False, first=False),
        shared(64, 4),
        shared(64, 8),
        shared(32, 8, first=False),
    ],
    (FLASH, "backward"): [
        backward(16, 8, 64, resident=False, stages=2),
        backward(32, 8, 64, resident=True, stages=2),
        backward(64, 8, 64, resident=True, stages=2),
        backward(64, 4, 64, resident=True, stages=2),
    ],
    (NARROW, "forward"): [shared(32, 8, resident=False, first=False), shared(32, 8, first=False), shared(32, 4)],
    (NARROW, "backward"): [backward(32, 8, 32, resident=False, stages=2), StreamedLaunch(16, 32, 32, 8, 3)],
    (DPRNN, "forward"): [StreamedLaunch(16, 32, 32, 8, 3), StreamedLaunch(16, 64, 64, 8, 3)],
    (DPRNN, "backward"): [StreamedLaunch(16, 32, 32, 8, 3), StreamedLaunch(16, 64, 64, 8, 3)],
}
TRIALS = [
    Trial(problem, kernel, launch) for (problem, kernel), found in CANDIDATES.items() for launch in (None, *found)
]


@contextlib.contextmanager
def launched_by(launch: SharedLaunch | StreamedLaunch | None) -> Iterator[None]:
    """Have the scans take one launch alone, with TF32 allowed."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(tf32(True))
        if launch is not None:
            is_streamed = isinstance(launch, StreamedLaunch)
            name = "choose_streamed_launches" if is_streamed else "choose_shared_launches"
            stack.enter_context(mock.patch.object(streamed_scans, "runs", return_value=is_streamed))
            stack.enter_context(mock.patch.object(tuning, name, return_value=(launch,)))
        yield


def operands(problem: Problem, steps: int, device: str) -> dict[str, Any]:
    """Random gates of realistic scale, weights as trained models start, and an output gradient."""
    generator, hidden = torch.Generator(device).manual_seed(0), problem.hidden
    width = CELLS[problem.cell].gates * hidden

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, generator=generator)

    inner = CELLS[problem.cell].inner_gate is not None
    return {
        "gates": make(problem.rows, steps, 2 * width).to(problem.dtype),
        "weight": (make(2, width, hidden) / hidden**0.5).to(problem.dtype),
        "inner_bias": make(2, hidden).to(problem.dtype) if inner else None,
        "grad": make(problem.rows, steps, 2 * hidden).to(problem.dtype),
    }


def forward(p: dict[str, Any], cell: str) -> tuple[Tensor, Tensor, Tensor]:
    return scan_kernels.scan(p["gates"], p["weight"], p["inner_bias"], SCANS, cell, True)


def run(trial: Trial, p: dict[str, Any]) -> Any:
    """A call that launches the trial's kernels. Forward has run by the table's launches if backward is called."""
    cell = trial.problem.cell
    if trial.kernel == "forward":
        return lambda: forward(p, cell)
    with launched_by(None):
        out, cells, activations = forward(p, cell)
    has_activations = activations.dim() == p["gates"].dim()
    saved = activations if has_activations else p["gates"]
    return lambda: scan_kernels.scan_backward(
        p["grad"], saved, p["weight"], p["inner_bias"], out, cells, SCANS, cell, has_activations
    )


def expected(trial: Trial, p: dict[str, Any]) -> Tensor:
    """h, or the gates' gradient, in float64."""
    gates, row = p["gates"].double().requires_grad_(), CELLS[trial.problem.cell]
    bias = None
    if p["inner_bias"] is not None:
        bias = p["weight"].new_zeros(2, row.gates, trial.problem.hidden, dtype=torch.float64)
        bias[:, row.inner_gate] = p["inner_bias"]
        bias = bias.flatten(1)
    out = reference.scan_gates(gates, p["weight"].double(), bias, scans=SCANS, cell=trial.problem.cell)
    return out.detach() if trial.kernel == "forward" else torch.autograd.grad(out, gates, p["grad"].double())[0]


def check(trial: Trial, device: str) -> dict[str, Any]:
    """The error against float64 over a few steps, or why the launch cannot run."""
    p = operands(trial.problem, CHECKED_STEPS, device)
    try:
        call = run(trial, p)
        with launched_by(trial.launch):
            return {"error": error(call()[0], expected(trial, p))}
    except Exception as failure:
        return {"failure": f"{type(failure).__name__}: {first_line(failure)}"}


def measure(trial: Trial, device: str) -> dict[str, Any]:
    """One row of the results."""
    problem, launch = trial.problem, trial.launch
    name = "table" if launch is None else "streamed" if isinstance(launch, StreamedLaunch) else "shared memory"
    row = {**problem._asdict(), "dtype": str(problem.dtype).removeprefix("torch."), "kernel": trial.kernel}
    row |= {"by": name, "launch": None if launch is None else asdict(launch), **check(trial, device)}
    if row.get("error", 1.0) < BUDGET[problem.dtype] and device == "cuda":
        p = operands(problem, problem.steps, device)
        call = run(trial, p)
        with launched_by(launch):
            row["ms"] = milliseconds(call, launches=3)
    return row


def compile_trial(trial: Trial) -> None:
    """Leave the binaries in Triton's cache on disk. Failures come again when the trial is measured."""
    check(trial, "cuda")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--trials", type=int, help="take only the first N")
    parser.add_argument("--processes", type=int, default=min(14, os.cpu_count() or 1), help="that compile")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds after which no other trial begins")
    parser.add_argument("--output", type=Path, help="default: in benchmarks/results")
    args = parser.parse_args(arguments)
    begin, trials, rows = time.monotonic(), TRIALS[: args.trials], list[dict[str, Any]]()
    if args.device == "cuda":
        with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(compile_trial, trials))
        print(f"compiled after {time.monotonic() - begin:.0f} s", flush=True)
    for trial in trials:
        if time.monotonic() - begin > args.time_limit:
            break
        rows.append(measure(trial, args.device))
        print(json.dumps(rows[-1]), flush=True)
        write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, arguments)), "rows": rows}, args.output)
    print(f"not measured: {len(trials) - len(rows)}")


if __name__ == "__main__":
    main()
