"""Times the fused recurrence alone, over launch configurations, for the table in `sequencer2d/ops/launches.py`.

    python -m benchmarks.kernels.recurrence [--only forward] [--hidden 96 48] [--output FILE]

Every configuration is checked against the float64 reference before it is timed (CUDA events, median). Compilation runs
in parallel processes first, because it takes longer than everything else.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.record import command_line, origin, write_result
from sequencer2d.ops import reference
from sequencer2d.ops.kernels import gluon_launch, triton_launch
from sequencer2d.ops.launches import RegisterLaunch, SharedLaunch
from sequencer2d.ops.recurrence import Recurrence

NAME = "recurrence"
SCRIPT = "benchmarks.kernels.recurrence"
# (hidden units, tokens a side): the two kinds of stage of the published models at 224², and larger ones.
STAGES = {256: 16, 192: 16, 128: 16, 96: 16, 64: 16, 48: 32}
SCANS = (0, 1, 2, 3)
KERNELS = ("forward", "training", "backward")
# Names of a launch's fields in the result files.
RESULT_FIELDS = {"programs_per_sm": "share", "product_inputs": "inner", "matmuls_first": "ahead"}


# Worth timing: the table's, which an exhaustive sweep of rows 16 to 128 and warps 2 to 8 began with, and what the
# compiler says spills few registers. "training" is forward that keeps what backward needs.
# W_hh of 192 and 256 units is spread over registers, shared memory and memory: the last two numbers of a launch are the
# tiles, of 9 and 16, in the first two.
REGISTER_CANDIDATES = {
    ("forward", 256): [RegisterLaunch(8, 8, 3, 1, 3, 5), RegisterLaunch(8, 8, 3, 1, 4, 5)],
    ("training", 256): [RegisterLaunch(8, 8, 2, 1, 3, 5), RegisterLaunch(8, 8, 2, 1, 4, 5)],
    ("backward", 256): [
        RegisterLaunch(16, 8, 2, 1, 2, 3),
        RegisterLaunch(16, 8, 2, 1, 3, 3),
        RegisterLaunch(16, 8, 2, 1, 4, 3),
    ],
    ("forward", 192): [RegisterLaunch(8, 8, 3, 1, 4, 5), RegisterLaunch(16, 8, 2, 1, 4, 5)],
    ("training", 192): [RegisterLaunch(8, 8, 3, 1, 4, 5), RegisterLaunch(16, 8, 2, 1, 4, 4)],
    ("backward", 192): [
        RegisterLaunch(16, 8, 2, 1, 3, 4),
        RegisterLaunch(16, 8, 2, 1, 4, 4),
        RegisterLaunch(16, 8, 2, 1, 5, 4),
    ],
    ("forward", 128): [RegisterLaunch(8, 8, 3, 1), RegisterLaunch(8, 8, 4, 1), RegisterLaunch(16, 8, 3, 1)],
    ("training", 128): [RegisterLaunch(8, 8, 3, 1), RegisterLaunch(16, 8, 3, 1)],
    ("backward", 128): [RegisterLaunch(16, 8, 3, 1), RegisterLaunch(16, 16, 3, 1), RegisterLaunch(32, 8, 3, 1)],
    ("forward", 96): [RegisterLaunch(8, 4, 3, 2), RegisterLaunch(8, 4, 4, 2), RegisterLaunch(16, 4, 3, 2)],
    ("forward", 64): [RegisterLaunch(8, 4, 3, 4), RegisterLaunch(16, 4, 3, 2), RegisterLaunch(16, 8, 4, 2)],
    ("forward", 48): [RegisterLaunch(8, 2, 3, 6), RegisterLaunch(16, 2, 3, 4), RegisterLaunch(16, 2, 4, 4)],
    ("training", 96): [RegisterLaunch(8, 4, 3, 2), RegisterLaunch(8, 4, 4, 2), RegisterLaunch(16, 4, 3, 2)],
    ("training", 64): [RegisterLaunch(8, 4, 3, 3), RegisterLaunch(16, 4, 3, 2), RegisterLaunch(16, 8, 3, 2)],
    ("training", 48): [RegisterLaunch(8, 2, 3, 4), RegisterLaunch(16, 2, 3, 4)],
    ("backward", 96): [RegisterLaunch(16, 4, 3, 2), RegisterLaunch(16, 4, 4, 2)],
    ("backward", 64): [RegisterLaunch(16, 4, 3, 2), RegisterLaunch(16, 8, 3, 2)],
    ("backward", 48): [RegisterLaunch(16, 2, 3, 4), RegisterLaunch(16, 2, 2, 4)],
}
READ_AT_EACH_STEP = SharedLaunch(16, 64, 4, resident=False, stages=1, matmuls_first=False)
CANDIDATES = {
    **{(kernel, hidden): [READ_AT_EACH_STEP] for kernel in ("forward", "backward") for hidden in (192, 256)},
    ("forward", 128): [SharedLaunch(32, 32, 4), SharedLaunch(16, 32, 4)],
    ("backward", 128): [SharedLaunch(64, 32, 4, matmuls_first=False), SharedLaunch(16, 32, 4, matmuls_first=False)],
    ("forward", 96): [
        SharedLaunch(32, 32, 4),
        SharedLaunch(16, 32, 4, stages=3),
    ],
    ("forward", 64): [
        SharedLaunch(16, 64, 4, stages=3),
    ],
    ("forward", 48): [
        SharedLaunch(32, 16, 2, stages=4),
        SharedLaunch(16, 16, 2, stages=3),
        SharedLaunch(16, 64, 4, stages=3),
    ],
    ("backward", 96): [
        SharedLaunch(16, 32, 4, stages=3, matmuls_first=False),
    ],
    ("backward", 64): [
        SharedLaunch(64, 32, 4, stages=3, product_inputs=64, matmuls_first=False),
        SharedLaunch(16, 32, 4, stages=3, matmuls_first=False),
    ],
    ("backward", 48): [
        SharedLaunch(64, 16, 4, product_inputs=64),
        SharedLaunch(64, 16, 4, stages=3, product_inputs=64),
        SharedLaunch(32, 16, 2, stages=3),
        SharedLaunch(16, 64, 4, stages=3, matmuls_first=False),
    ],
}


def problem(hidden: int, batch: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random gates of realistic scale, weights as trained models start, and an output gradient."""
    side = STAGES[hidden]
    generator = torch.Generator("cuda").manual_seed(0)
    make = lambda *shape: torch.randn(*shape, device="cuda", generator=generator)  # noqa: E731
    return {
        "gates": make(batch, side, side, 16 * hidden).to(dtype),
        "weight": (make(4, 4 * hidden, hidden) / hidden**0.5).to(dtype),
        "grad": make(batch, side, side, 4 * hidden).to(dtype),
    }


def operands(p: dict, dtype: torch.dtype) -> Recurrence:
    return Recurrence(p["gates"], p["weight"], None, SCANS, "lstm", dtype is torch.bfloat16, "tf32x3")


def run_forward(
    p: dict, launch: SharedLaunch | RegisterLaunch, dtype: torch.dtype, save: bool
) -> tuple[torch.Tensor, ...]:
    if isinstance(launch, RegisterLaunch):
        approximate = dtype is torch.bfloat16
        return gluon_launch.launch_forward(
            p["gates"], p["weight"], scans=SCANS, save=save, launches=(launch,), approximate_tanh=approximate
        )
    return triton_launch.launch_forward(operands(p, dtype), (launch,), save_cells=save)


def run_backward(p: dict, launch: SharedLaunch | RegisterLaunch, dtype: torch.dtype) -> torch.Tensor:
    if isinstance(launch, RegisterLaunch):
        approximate = dtype is torch.bfloat16
        return gluon_launch.launch_backward(
            p["grad"],
            p["activations"],
            p["weight"],
            p["cells"],
            scans=SCANS,
            launches=(launch,),
            approximate_tanh=approximate,
        )
    return triton_launch.launch_backward(operands(p, dtype), (launch,), p["grad"], p["out"], p["cells"])[0]


def oracle(p: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """h and the gates' gradient in float64."""
    gates = p["gates"].double().requires_grad_()
    out = reference.scan_gates(gates, p["weight"].double(), None, scans=SCANS, cell="lstm")
    return out.detach(), torch.autograd.grad(out, gates, p["grad"].double())[0]


def error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return ((value.double() - expected).norm() / expected.norm()).item()


def milliseconds(function, launches: int = 10, repeats: int = 7) -> float:
    """Median time of one launch, many in a CUDA graph: a launch from Python takes longer than a small kernel runs."""
    function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            function()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / launches)
    return statistics.median(times)


def candidates(size: tuple[str, int], place: str | None) -> list[SharedLaunch | RegisterLaunch]:
    """Launches to time for (kernel, hidden units), with W_hh in `place` or, by default, in both."""
    kernel, hidden = size
    shared = CANDIDATES["forward" if kernel == "training" else kernel, hidden]
    return [*(REGISTER_CANDIDATES[size] if place != "shared" else ()), *(shared if place != "registers" else ())]


def compile_one(job: tuple[str, int, SharedLaunch | RegisterLaunch, str]) -> str:
    """Compile by running on a tiny batch; the binary lands in Triton's cache for the timing process."""
    kernel, hidden, launch, dtype_name = job
    dtype = getattr(torch, dtype_name)
    try:
        p = problem(hidden, 2, dtype)
        if kernel != "backward":
            run_forward(p, launch, dtype, False)
            run_forward(p, launch, dtype, True)
        else:
            p["out"], p["cells"], p["activations"] = p["grad"], p["grad"], p["gates"]
            run_backward(p, launch, dtype)
        torch.cuda.synchronize()
    except Exception as failure:
        return f"{type(failure).__name__}: {str(failure)[:160]}"
    return ""


def describe(kernel: str, hidden: int, launch: SharedLaunch | RegisterLaunch) -> dict:
    place = "registers" if isinstance(launch, RegisterLaunch) else "shared memory"
    fields = {RESULT_FIELDS.get(name, name): value for name, value in dataclasses.asdict(launch).items()}
    return {"kernel": kernel, "hidden": hidden, "w_hh": place, **fields}


def kept(p: dict, hidden: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What forward keeps for backward: activations for the kernels with W_hh in registers, too."""
    values = run_forward(p, REGISTER_CANDIDATES["training", hidden][0], dtype, save=True)
    return dict(zip(("out", "cells", "activations"), values, strict=True))


def measure(
    kernel: str, hidden: int, launch: SharedLaunch | RegisterLaunch, dtype: torch.dtype, batches: list[int]
) -> dict:
    row = describe(kernel, hidden, launch) | {"dtype": str(dtype).split(".")[-1]}
    small = problem(hidden, 3, dtype)
    expected_out, expected_grad = oracle(small)
    if kernel != "backward":
        row["error"] = error(run_forward(small, launch, dtype, kernel == "training")[0], expected_out)
    else:
        row["error"] = error(run_backward(small | kept(small, hidden, dtype), launch, dtype), expected_grad)
    if not row["error"] < 0.02:
        return row
    for batch in batches:
        p = problem(hidden, batch, dtype)
        if kernel != "backward":
            row[f"ms_{batch}"] = milliseconds(lambda p=p: run_forward(p, launch, dtype, kernel == "training"))
        else:
            p |= kept(p, hidden, dtype)
            row[f"ms_{batch}"] = milliseconds(lambda p=p: run_backward(p, launch, dtype))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="default: benchmarks/results/recurrence.json")
    parser.add_argument("--only", choices=KERNELS)
    parser.add_argument("--w-hh", choices=("registers", "shared"), help="default: both")
    parser.add_argument("--hidden", type=int, nargs="+", choices=STAGES, default=[96, 64, 48])
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 16, 1], help="images")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--processes", type=int, default=min(14, os.cpu_count() or 1))
    args = parser.parse_args()
    kernels = [args.only] if args.only else KERNELS
    sizes = [(kernel, hidden) for kernel in kernels for hidden in args.hidden]
    jobs = [(*size, launch, args.dtype) for size in sizes for launch in candidates(size, args.w_hh)]
    with ProcessPoolExecutor(args.processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        failures = list(pool.map(compile_one, jobs))
    rows = []
    for (kernel, hidden, launch, dtype), failure in zip(jobs, failures, strict=True):
        if failure:
            row = describe(kernel, hidden, launch) | {"failure": failure}
        else:
            row = measure(kernel, hidden, launch, getattr(torch, dtype), args.batch)
        rows.append(row)
        print(json.dumps(row), flush=True)
        write_result({**origin(NAME, SCRIPT, command_line(SCRIPT)), "rows": rows}, args.output)


if __name__ == "__main__":
    main()
