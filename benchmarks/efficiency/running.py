"""How fast is Sequencer beside its peers, and how much memory does it take? Runs plans of `sequencer2d bench`.

    python -m benchmarks.efficiency                                  all plans, on one GPU: hours
    python -m benchmarks.efficiency --plans peers latency --gpus 8   the models spread over the GPUs, one process each
    python -m benchmarks.efficiency --time-limit 540 …               stops cleanly; the same command goes on
    python -m benchmarks.efficiency --processes 14 …                 14 processes a GPU compile side by side

Processes on one GPU take turns: all others stand still while one of them is timed. Each process writes a part,
`--parts` (a folder) holds them; after every run the parts are merged into
`--output`, from which the tables (`./dev bench-tables`) and the figures
(`python -m benchmarks.efficiency.plots`) are made. Models are compared on one GPU: a workload is not divided, unless
there are more GPUs than workloads.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import RESULTS, command_line, write_result
from sequencer2d.benchmark import PLANS, merge, read_result

SCRIPT = "benchmarks.efficiency"
DEFAULT_PLANS = [name for name in PLANS if name != "quick"]


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    options.parts.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    codes = []

    def time_left() -> float | None:
        return options.time_limit - (time.monotonic() - begin) if options.time_limit else None

    for plan in options.plans:
        left = time_left()
        if left is None or left > 0:
            codes += run_plan(plan, options, left)
            merge_parts(options.parts, options.output, command_line(SCRIPT, arguments))
    return max(codes, default=0)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {SCRIPT}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plans", nargs="+", choices=list(PLANS), default=DEFAULT_PLANS, metavar="PLAN")
    parser.add_argument("--gpus", type=int, default=1, help="processes, one GPU each (default: 1)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="on each GPU, in turns (default: 1)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for all plans together")
    parser.add_argument("--parts", type=Path, metavar="FOLDER", help="default: benchmark-parts/ and the output's name")
    parser.add_argument("--output", type=Path, default=RESULTS / "efficiency.json", metavar="FILE")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="-- OPTIONS", help="passed on to sequencer2d bench")
    options = parser.parse_args(arguments)
    options.parts = options.parts or Path("benchmark-parts", options.output.stem)
    return options


def run_plan(plan: str, options: argparse.Namespace, time_limit: float | None) -> list[int]:
    """The processes of each GPU, which measure its share of the plan; their exit codes."""
    count = options.gpus * options.processes
    share_rows(options.parts, count)
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            command = bench_command(plan, index, options, time_limit, Path(folder))
            print(shlex.join(command), flush=True)
            processes.append(subprocess.Popen(command, env=environment(index, options), stdout=subprocess.DEVNULL))
        return wait(processes)


def environment(index: int, options: argparse.Namespace) -> dict[str, str]:
    """The variables of one process: its GPU, and its share of the cores."""
    changes = {}
    if options.gpus > 1:
        changes["CUDA_VISIBLE_DEVICES"] = str(index % options.gpus)
    if options.processes > 1:
        # Otherwise each process would take every core for what runs on the CPU, and wait for the others.
        cores = max((os.cpu_count() or 1) // (options.gpus * options.processes), 1)
        changes |= {"OMP_NUM_THREADS": str(cores), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return os.environ | changes


def wait(processes: list["subprocess.Popen[bytes]"]) -> list[int]:
    """The exit codes. A process that was killed while the others stood still has left them so: wake them."""
    killed = 0
    try:
        while None in (codes := [process.poll() for process in processes]):
            if killed < (killed := sum((code or 0) < 0 for code in codes)):
                wake(processes)
            time.sleep(0.2)
    except BaseException:
        for process in processes:
            process.kill()
        raise
    return [process.returncode for process in processes]


def wake(processes: list["subprocess.Popen[bytes]"]) -> None:
    """Let every process go on that stands still."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)


def share_rows(folder: Path, processes: int) -> None:
    """Give every process the rows of all: what one measured for a plan may be another one's share of the next."""
    paths = sorted(folder.glob("part-*.json"))
    if paths:
        merged = merge([read_result(path) for path in paths], folder.name)
        for index in range(processes):
            write_result(merged, folder / f"part-{index}.json")


def passed_on(options: argparse.Namespace) -> list[str]:
    """What stands after `--` on the command line."""
    return [option for option in options.rest if option != "--"]


def bench_command(
    plan: str, index: int, options: argparse.Namespace, time_limit: float | None, folder: Path
) -> list[str]:
    """The command line of one process. folder: in which the processes of a GPU agree on turns."""
    command = [sys.executable, "-m", "sequencer2d", "bench", "--plan", plan]
    command += ["--output", str(options.parts / f"part-{index}.json")]
    gpu = index % options.gpus
    if options.gpus > 1:
        command += ["--shard", f"{gpu + 1}/{options.gpus}"]
    if options.processes > 1:
        command += ["--turns", str(folder / str(gpu))]
    if time_limit is not None:
        command += ["--time-limit", f"{time_limit:.0f}"]
    return command + passed_on(options)


def merge_parts(folder: Path, output: Path, command: str) -> None:
    """Put the parts together. command: of the last run."""
    parts = [read_result(path) for path in sorted(folder.glob("part-*.json"))]
    merged = {**merge(parts, output.stem), "script": SCRIPT, "command": command}
    write_result(merged, output)
    print(f"{output}: {len(merged['rows'])} rows from {len(parts)} parts")
