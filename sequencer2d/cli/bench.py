"""`sequencer2d bench`: speed and memory of Sequencer beside its peers, on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.bench_report import report, row_line
from sequencer2d.cli.common import (
    add_json,
    add_trust,
    console,
    positive,
    progress_bar,
    remark,
    resolve_device,
    writable_path,
)
from sequencer2d.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress

    from sequencer2d.benchmark import Case, ResultFile

FIELDS = {"models": "models", "batch": "batches", "size": "sizes", "mode": "modes"}
LAYOUTS = ("workloads", "table1")

EPILOG = """\
examples:
  sequencer2d bench                                         a few minutes: small models, one image and many
  sequencer2d bench --models sequencer2d_s,convnext_tiny --batch 1,16,256 --size 224,448 --mode inference,training
  sequencer2d bench --plan table1 --output table1.json      the paper's Table 1; --plan help lists the plans
  sequencer2d bench --plan table1 --forms paper             … by the paper's protocol only: fp32, eager, SGD
  sequencer2d bench --merge table1.json --layout table1 --accuracy s.json swin.json     … with what `eval --json` wrote
  sequencer2d bench --artifacts model.onnx model.xml --batch 1,8   what `sequencer2d export` wrote, on the CPU
  sequencer2d bench --merge a.json b.json --output all.json put results of equal devices together

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
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_choice(parser)
    _add_run_options(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.plan == "help":
        return _list_plans()
    if arguments.merge:
        return _merge(arguments)
    if arguments.artifacts:
        return _bench_artifacts(arguments)
    device = resolve_device(arguments.device)
    cases = _shard(plan_cases(arguments, device), arguments.shard)
    if arguments.dry_run:
        return _print_plan(cases)
    from sequencer2d.benchmark import ResultFile, result_header

    if device.index is not None:
        import torch

        torch.cuda.set_device(device)
    path = Path(arguments.output or _default_output(device))
    header = result_header(path.stem, device, _command())
    results = ResultFile(path, header, fresh=arguments.force)
    finished = _measure(arguments, cases, results, device)
    _report(list(results.rows.values()), arguments)
    rest = "" if finished else "; the time limit came before the end: the same command goes on"
    remark(f"{path}: {len(results.rows)} rows{rest}")
    return 0


def plan_cases(arguments: argparse.Namespace, device: torch.device) -> list[Case]:
    """The cases of a plan; models, batch, size and mode where they are named replace those of its sweeps.

    Without a plan these are one sweep; without anything it is the plan "quick".

    Raises:
        ConfigError: an unknown plan, model, mode, dtype or form.
    """
    from sequencer2d.benchmark import PLANS, Plan, available_forms
    from sequencer2d.benchmark.plans import QUICK, QUICK_CPU

    if arguments.plan and arguments.plan not in PLANS:
        raise ConfigError(f"no plan {arguments.plan!r}; there are {', '.join(PLANS)}")
    quick = QUICK if device.type == "cuda" else QUICK_CPU
    plan = PLANS[arguments.plan] if arguments.plan else Plan("as given", (quick,))
    given = {field: tuple(getattr(arguments, name)) for name, field in FIELDS.items() if getattr(arguments, name)}
    sweeps = [dataclasses.replace(sweep, **given).limited(arguments.dtype, arguments.forms) for sweep in plan.sweeps]
    default_dtypes = ["bf16"] if device.type == "cuda" else ["fp32"]
    cases = Plan(plan.question, tuple(sweeps)).cases(default_dtypes, available_forms(device))
    if not cases:
        raise ConfigError(
            f"nothing to measure: --forms {','.join(arguments.forms)} does not fit the models, --mode and --dtype; "
            "'paper' is for fp32, 'optimized' for inference of ours, 'lean' for training"
        )
    return cases


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plan", metavar="NAME", help="models and workloads, which the options below replace; 'help' lists the plans"
    )
    parser.add_argument("--models", type=_names, metavar="A,B", help="models to measure")
    parser.add_argument(
        "--artifacts", nargs="+", metavar="FILE", help="time exported models on the CPU instead: .onnx, .xml, .pt2"
    )
    add_trust(parser)
    parser.add_argument("--batch", type=_integers, metavar="N,…", help="images per step (default: 1,128; on a CPU 1)")
    parser.add_argument("--size", type=_integers, metavar="N,…", help="side of the images, pixels (default: 224)")
    parser.add_argument("--mode", type=_names, metavar="A,B", help="inference, training or both (default: inference)")
    parser.add_argument(
        "--dtype",
        type=_names,
        metavar="A,B",
        help="bf16, fp16, fp32: of weights and images in inference, of autocast in training (default: bf16; CPU: fp32)",
    )
    parser.add_argument(
        "--forms",
        type=_names,
        metavar="A,B",
        help="eager, compile, graph (compiled, captured), autotune, optimized (inference), lean (training: a graph "
        "that keeps fewer activations), paper (fp32, eager, SGD: the paper's Table 1); default: the plan's, or all but "
        "autotune, lean, paper; CPU: eager",
    )
    parser.add_argument("--shard", type=_shard_spec, metavar="I/N", help="measure the Ith of N parts only, from 1")
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:INDEX (default: auto)"
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=writable_path, metavar="FILE", help="result file, JSON (default: bench-<device>.json here)"
    )
    parser.add_argument("--force", action="store_true", help="start the result file anew")
    parser.add_argument("--retry", action="store_true", help="measure again what failed before")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="begin no new row after this time")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="SECONDS", help="how long a row's steps are timed (default: 1)"
    )
    parser.add_argument("--peer", default="convnext_tiny", metavar="NAME", help="ratios to it (default: convnext_tiny)")
    parser.add_argument("--merge", nargs="+", metavar="FILE", help="measure nothing: show these results as one")
    parser.add_argument(
        "--layout", choices=LAYOUTS, help="of the tables: by workload, or as the paper's Table 1 (default: the plan's)"
    )
    parser.add_argument(
        "--accuracy",
        nargs="+",
        default=[],
        metavar="FILE",
        help="what `sequencer2d eval MODEL --json` wrote, for the column top-1 of --layout table1",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be measured and stop")


def _bench_artifacts(arguments: argparse.Namespace) -> int:
    """Time exported models on random images: batch and size as given, else one image of the model's own size."""
    from sequencer2d.export import load_artifact
    from sequencer2d.export.timing import time_artifact

    rows = []
    for path in arguments.artifacts:
        artifact = load_artifact(path, trust=arguments.trust)
        height, width = artifact.pretrained_cfg["input_size"][1:]
        sizes = [(size, size) for size in arguments.size] if arguments.size else [(height, width)]
        for size, batch in itertools.product(sizes, arguments.batch or [1]):
            rows.append(time_artifact(artifact, batch, size, measure_s=arguments.seconds))
    if arguments.json:
        terminal.write_json(rows)
        return 0
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("artefact", "format", "precision", "batch", "size, pixels", "images/s", "latency, ms"):
        table.add_column(name, justify="right" if name in ("batch", "images/s", "latency, ms") else "left")
    for row in rows:
        height, width = row["size"]
        numbers = (f"{row['images_per_s']:,.1f}", f"{row['latency_ms']:,.3f}")
        table.add_row(row["path"], row["format"], row["precision"], str(row["batch"]), f"{height}×{width}", *numbers)
    console().print(table)
    return 0


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names separated by commas, got {text!r}")
    return names


def _integers(text: str) -> list[int]:
    return [positive(part) for part in _names(text)]


def _shard_spec(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/8, got {text!r}")
    return int(match[1]), int(match[2])


def _shard(cases: list[Case], shard: tuple[int, int] | None) -> list[Case]:
    """The cases of a shard: whole workloads if there are enough of them, as its models are compared with each other."""
    if shard is None:
        return cases
    index, count = shard
    workloads = list(dict.fromkeys(map(_workload, cases)))
    if len(workloads) < count:
        return cases[index - 1 :: count]
    mine = set(workloads[index - 1 :: count])
    return [case for case in cases if _workload(case) in mine]


def _workload(case: Case) -> tuple[str, str, int, int]:
    return case.mode, case.dtype, case.batch, case.size


def _measure(arguments: argparse.Namespace, cases: list[Case], results: ResultFile, device: torch.device) -> bool:
    from sequencer2d.benchmark import run as run_cases

    deadline = time.monotonic() + arguments.time_limit if arguments.time_limit else None
    with progress_bar("rows") as progress:
        task = progress.add_task("limits of the device", total=sum(len(case.forms) for case in cases))
        return run_cases(
            cases,
            results,
            device,
            deadline=deadline,
            retry=arguments.retry,
            measure_s=arguments.seconds,
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


def _list_plans() -> int:
    from rich.table import Table

    from sequencer2d.benchmark import PLANS

    table = Table("plan", "what it answers", box=None, pad_edge=False)
    for name, plan in PLANS.items():
        table.add_row(name, plan.question)
    console().print(table)
    return 0


def _print_plan(cases: list[Case]) -> int:
    for case in cases:
        terminal.write(f"{case}: {', '.join(case.forms)}")
    remark(f"{sum(len(case.forms) for case in cases)} rows")
    return 0


def _default_output(device: torch.device) -> str:
    from sequencer2d.benchmark.provenance import device as describe

    name = describe(device.type)["name"] if device.type == "cuda" else "cpu"
    return f"bench-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"


def _command() -> str:
    return " ".join(["sequencer2d", *sys.argv[1:]])
