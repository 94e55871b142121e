"""Speed and memory of backbones under a decoder, in inference and training: writes `results/dense-speed.json`.

    python -m benchmarks.dense.speed                                  six backbones, four sizes: 200 s on one H200
    python -m benchmarks.dense.speed --time-limit 195                 stops in time; the same command goes on
    python -m benchmarks.dense.speed --device cpu --sizes 64 --models sequencer2d_n …

Every step handles about four megapixels: 16 images of 512², 8 of 768², 4 of 1024², 2 of 1536². A model whose cost is
linear in the pixels has the same rate in megapixels/s at all of them. Inference is in bf16; training is forward, cross
entropy over all pixels, backward and fused AdamW under autocast to bf16. Every model runs in channels-last memory
format and in a CUDA graph, its blocks and the decoder compiled; our inference goes through `sequencer2d.optimize`. The
resizing of the logits to the image and the loss are the same, uncompiled, for all. Before it is timed, our form is
compared with the reference implementation in fp64 on two images.

Processes compile side by side, and measure one at a time afterwards. What a time limit leaves out, the same command
adds: a compiler finds what it compiled before on the same machine.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.dense.contenders import MODELS, PEERS, VARIANTS, Contender
from benchmarks.dense.worker import LATE, Job
from benchmarks.record import RESULTS, command_line, origin, write_result
from sequencer2d.benchmark import ceilings
from sequencer2d.benchmark.provenance import now
from sequencer2d.files import read_json

NAME, SCRIPT = "dense-speed", "benchmarks.dense.speed"
BATCHES = {512: 16, 768: 8, 1024: 4, 1536: 2}
SIZES = (1024, 768, 1536, 512)
MODES = ("inference", "training")
VARIANTS_SIZE = 1024
DTYPE = "bfloat16"
COMPILING = 0.6
"""Share of the time limit after which no process begins to compile another job."""
KEY = [field.name for field in dataclasses.fields(Job)]

Row = dict[str, Any]


def jobs_of(models: Iterable[str], sizes: Iterable[int], modes: Iterable[str]) -> list[Job]:
    """All rows in the order of their weight: the comparison size by size, then the pyramid's cost, then eager forms."""
    models, sizes, modes = list(models), list(sizes), list(modes)
    jobs = [_job(peer, mode, size) for mode in modes for size in sizes for peer in PEERS if peer.model in models]
    jobs += [_job(Contender(model), mode, size) for mode in modes for size in sizes for model in models
             if model not in MODELS]  # fmt: skip
    own = [variant for variant in VARIANTS if variant.model in models]
    inner = VARIANTS_SIZE if VARIANTS_SIZE in sizes else sizes[0]
    jobs += [
        _job(variant, mode, inner) for mode in modes for variant in own if mode == "inference" or variant.head != "none"
    ]
    return jobs + [_job(peer, mode, inner, "eager") for mode in modes for peer in PEERS if peer.model in models]


def _job(contender: Contender, mode: str, size: int, form: str = "best") -> Job:
    # A smaller size, for trials, has a batch of two.
    return Job(*contender, mode=mode, size=size, batch=BATCHES.get(size, 2), form=form)


def workers_of(jobs: Iterable[Job], cores: int) -> list[list[Job]]:
    """The jobs that share a process: none if there are cores for all of them.

    Otherwise those of one model and mode, at two sizes in training; the variants apart.
    """
    jobs = list(jobs)
    if len(jobs) <= cores:
        return [[job] for job in jobs]
    groups: dict[Any, list[Job]] = {}
    for job in jobs:
        part = (job.size > 1000) if job.mode == "training" else None
        groups.setdefault((job.model, job.mode, part, job.contender in VARIANTS), []).append(job)
    return list(groups.values())


class Workers:
    """Processes that compile side by side and measure on request. Their standard error is in `<output>.<n>.err`."""

    def __init__(self, groups: list[list[Job]], options: argparse.Namespace) -> None:
        self.groups = groups
        self._errors = [Path(f"{options.output}.{number}.err") for number in range(len(groups))]
        self._late: set[int] = set()
        self._listeners: list[threading.Thread] = []
        self._answers: queue.Queue[tuple[int, str]] = queue.Queue()
        self._processes = [self._start(number, group, options) for number, group in enumerate(groups)]

    def _start(self, number: int, group: list[Job], options: argparse.Namespace) -> "subprocess.Popen[str]":
        told = {
            "device": options.device,
            "dtype": options.dtype,
            "seconds": options.seconds,
            "until": time.time() + COMPILING * options.time_limit,
            "jobs": [dataclasses.asdict(job) for job in group],
        }
        threads = str(max(1, (os.cpu_count() or 1) // len(self.groups)))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": threads}
        with self._errors[number].open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.dense.worker", json.dumps(told)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        listener = threading.Thread(target=self._listen, args=(number, process), daemon=True)
        listener.start()
        self._listeners.append(listener)
        return process

    def _listen(self, number: int, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._answers.put((number, line))
        self._answers.put((number, json.dumps({"error": self._end_of(number, process)})))

    def _end_of(self, number: int, process: "subprocess.Popen[str]") -> str:
        """Why a process is no more: it was late, or its exit code (below 0: the signal) and what it said last."""
        code = process.wait()
        if number in self._late:
            return LATE
        said = self._errors[number].read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "nothing")
        return f"its process ended with {code}, and said last: {last[:200]}"

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until all have compiled; end those that still compile at the deadline."""
        waiting = set(range(len(self.groups)))
        while waiting and (answer := self._next(deadline)):
            number, found = answer
            waiting.discard(number)
            print(f"{self._name(number)}: {found}, {len(waiting)} left", flush=True)
        for number in waiting:
            self._late.add(number)
            self._processes[number].kill()
            print(f"{self._name(number)}: not compiled in time", flush=True)

    def _name(self, number: int) -> str:
        sizes = ", ".join(sorted({str(job.size) for job in self.groups[number]}))
        return f"{self.groups[number][0].model} {self.groups[number][0].mode} {sizes}"

    def measure(self, job: Job, deadline: float) -> Row | None:
        """The row of a job; None if the deadline comes first."""
        number = next(number for number, group in enumerate(self.groups) if job in group)
        process = self._processes[number]
        assert process.stdin is not None
        try:
            process.stdin.write(f"{self.groups[number].index(job)}\n")
            process.stdin.flush()
        except OSError:
            return {"error": self._end_of(number, process)}
        while (answer := self._next(deadline)) is not None:
            if answer[0] == number:
                return answer[1]
        return None

    def _next(self, deadline: float) -> tuple[int, Row] | None:
        try:
            number, line = self._answers.get(timeout=max(deadline - time.monotonic(), 0.01))
        except queue.Empty:
            return None
        found: Row = json.loads(line)
        return number, found

    def close(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.kill()
        for process, listener in zip(self._processes, self._listeners, strict=True):
            process.wait()
            listener.join()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # was not sent yet
                    assert pipe is not None
                    pipe.close()


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    deadline = time.monotonic() + options.time_limit
    rows = read_json(options.output)["rows"] if options.output.exists() else []
    done = {_key(row) for row in rows if not row.get("error")}
    jobs = [job for job in jobs_of(options.models, options.sizes, options.modes) if _key(vars(job)) not in done]
    if options.no_extras:
        jobs = [job for job in jobs if job.form == "best" and Contender(job.model) == job.contender]
    header = {**origin(NAME, SCRIPT, command_line(SCRIPT, argv))}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    workers = Workers(workers_of(jobs, os.cpu_count() or 1), options)
    try:
        # The last job that a process began is given half of the time that is left.
        workers.wait_until_ready(begin + (1 + COMPILING) / 2 * options.time_limit)
        print(f"compiled in {time.monotonic() - begin:.0f} s", flush=True)
        if options.compile_only:
            return 0
        header["ceilings"] = [ceilings(torch.device(options.device))]
        for job in jobs:
            found = workers.measure(job, deadline)
            if found is None:
                print("the time is over; the same command goes on")
                break
            row = {**dataclasses.asdict(job), "dtype": options.dtype, **found, "date": now()}
            row["requested"] = job.form
            rows = [other for other in rows if _key(other) != _key(row)] + [row]
            write_result({**header, "rows": rows}, options.output)
            print(f"{time.monotonic() - begin:5.0f} s  {_line(row)}", flush=True)
    finally:
        workers.close()
        for path in options.output.parent.glob(f"{options.output.name}.*.err"):
            with contextlib.suppress(OSError):
                if not path.stat().st_size:
                    path.unlink()
    return 0


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get("requested", row["form"]) if name == "form" else row[name] for name in KEY)


def _line(row: Row) -> str:
    what = f"{row['model']} {row['maps']} {row['head']} {row['mode']} {row['size']}² × {row['batch']} {row['form']}"
    if row.get("error"):
        return f"{what}: {row['error']}"
    memory = row["peak_memory_mib"]
    return f"{what}: {row['images_per_s']:.1f} images/s" + (f", {memory:.0f} MiB" if memory else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {SCRIPT}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), metavar="PIXELS")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", default=DTYPE, choices=("bfloat16", "float32"))
    parser.add_argument("--seconds", type=float, default=0.3, help="of timed steps for each row (default: 0.3)")
    parser.add_argument("--time-limit", type=float, default=1e9, metavar="SECONDS")
    parser.add_argument("--no-extras", action="store_true", help="leave out the pyramid's cost and the eager forms")
    parser.add_argument("--compile-only", action="store_true", help="measure nothing: a later run finds the caches")
    parser.add_argument("--output", type=Path, default=RESULTS / f"{NAME}.json", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
