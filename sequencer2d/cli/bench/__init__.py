"""`sequencer2d bench`: speed and memory of Sequencer beside its peers, on this machine."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d.cli.bench import feed
from sequencer2d.cli.bench.artifacts import time_artifacts
from sequencer2d.cli.bench.options import LAYOUTS, add_options
from sequencer2d.cli.bench.planning import command, list_plans, plan_cases, print_cases, shard_of
from sequencer2d.cli.bench.report import report, row_line
from sequencer2d.cli.common import progress_bar, remark, resolve_device

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from sequencer2d.benchmark import Case, ResultFile

EPILOG = """\
examples:
  sequencer2d bench                                         a few minutes: small models, one image and many
  sequencer2d bench --models sequencer2d_s,convnext_tiny --batch 1,16,256 --size 224,448 --mode inference,training
  sequencer2d bench --plan table1 --output table1.json      the paper's Table 1; --plan help lists the plans
  sequencer2d bench --plan table1 --forms paper             … by the paper's protocol only: fp32, eager, SGD
  sequencer2d bench --merge table1.json --layout table1 --accuracy s.json swin.json     … with what `eval --json` wrote
  sequencer2d bench --artifacts model.onnx model.xml --batch 1,8   what `sequencer2d export` wrote, on the CPU
  sequencer2d bench --merge a.json b.json --output all.json  put results of equal devices together
  sequencer2d bench input                                   what the input pipeline delivers; bench input --help

models: NAME or NAME@IMPLEMENTATION for ours, timm:sequencer2d_s for timm's Sequencer (timm:sequencer2d_s@fuse after
sequencer2d.fuse), and any of timm's models by its name (convnext_tiny, swin_tiny, deit_small, regnety_040 …).

Every model runs in every form, and its best counts. A row is written as soon as it is measured; the same command goes
on where it stopped. What runs our code is compared with the reference in fp64 first: a wrong result has no rate."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "bench",
        help="measure throughput, latency and memory beside other models",
        description="Measure images/s, latency (ms) and peak memory (MiB) of Sequencer and its peers on this machine.",
        epilog=EPILOG,
    )
    add_options(parser)
    parser.set_defaults(run=run)
    subjects = parser.add_subparsers(title="also", metavar="input")
    feed.add_parser(
        subjects.add_parser(
            "input",
            help="measure what the input pipeline delivers beside what the model takes",
            description="Measure the steps of the input (CPU time of an image), the loader, and on a GPU the training "
            "step.",
            epilog=feed.EPILOG,
        )
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.plan == "help":
        return list_plans()
    if arguments.merge:
        return _merge(arguments)
    if arguments.artifacts:
        return time_artifacts(arguments)
    device = resolve_device(arguments.device)
    cases = shard_of(plan_cases(arguments, device), arguments.shard)
    if arguments.dry_run:
        return print_cases(cases)
    from sequencer2d.benchmark import ResultFile, result_header

    if device.index is not None:
        import torch

        torch.cuda.set_device(device)
    path = Path(arguments.output or _default_output(device))
    header = result_header(path.stem, device, command())
    results = ResultFile(path, header, fresh=arguments.force)
    finished = _measure(arguments, cases, results, device)
    _report(list(results.rows.values()), arguments)
    rest = "" if finished else "; the time limit came before the end: the same command goes on"
    remark(f"{path}: {len(results.rows)} rows{rest}")
    return 0


def _measure(arguments: argparse.Namespace, cases: list[Case], results: ResultFile, device: torch.device) -> bool:
    from sequencer2d.benchmark import Turns
    from sequencer2d.benchmark import run as run_cases

    deadline = time.perf_counter() + arguments.time_limit if arguments.time_limit else None
    with progress_bar("rows") as progress:
        task = progress.add_task("limits of the device", total=sum(len(case.forms) for case in cases))
        return run_cases(
            cases,
            results,
            device,
            deadline=deadline,
            retry=arguments.retry,
            measure_s=arguments.seconds,
            turns=Turns(arguments.turns),
            on_start=lambda case, form: progress.update(task, description=f"{case}, {form}"),
            on_row=lambda row: _show_row(progress, task, row),
        )


def _show_row(progress: Progress, task: Any, row: dict[str, Any]) -> None:
    progress.advance(task)
    progress.console.print(row_line(row), highlight=False, markup=False, soft_wrap=True)


def _report(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    from sequencer2d.benchmark import PLANS, read_accuracies

    plan = PLANS.get(arguments.plan or "")
    layout = arguments.layout or (plan.layout if plan else LAYOUTS[0])
    report(rows, layout, peer=arguments.peer, accuracies=read_accuracies(arguments.accuracy), as_json=arguments.json)


def _merge(arguments: argparse.Namespace) -> int:
    from sequencer2d.benchmark import merge, read_result
    from sequencer2d.files import write_json

    merged = merge([read_result(path) for path in arguments.merge], Path(arguments.output or "merged").stem)
    if arguments.output:
        write_json(arguments.output, merged)
    _report(merged["rows"], arguments)
    return 0


def _default_output(device: torch.device) -> str:
    from sequencer2d.benchmark.provenance import device as describe

    name = describe(device.type)["name"] if device.type == "cuda" else "cpu"
    return f"bench-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
