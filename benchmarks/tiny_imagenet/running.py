"""The command line: schedule the runs of plans, or, in a process of its own, train one of them."""

import argparse
import sys
from pathlib import Path

import benchmarks.tiny_imagenet
from benchmarks.record import RESULTS, command_line
from benchmarks.tiny_imagenet.rows import SCRIPT, note_commit
from benchmarks.tiny_imagenet.runs import PLANS, configuration, run_name


def main(argv: list[str] | None = None) -> int:
    arguments = parser()
    options = arguments.parse_intermixed_args(argv)
    for name in options.plans:
        for model in options.models or ():
            if model not in PLANS[name].models:
                arguments.error(f"no model {model!r} in the plan {name}; it has {', '.join(PLANS[name].models)}")
    options.command = command_line(SCRIPT, argv)
    if options.about:
        for plan in map(PLANS.__getitem__, options.plans):
            print(f"{plan.about.strip()}\n\n{plan.minutes(len(options.seeds)):.0f} GPU minutes expected in all.")
        return 0
    if options.child:
        return train_one(options)
    from benchmarks.tiny_imagenet.scheduling import schedule

    return schedule(options)


def train_one(options: argparse.Namespace) -> int:
    """Train the one run that the scheduler named; 0, or EXIT_INTERRUPTED if it was stopped and saved."""
    from sequencer2d.cli.main import EXIT_INTERRUPTED
    from sequencer2d.errors import Interrupted
    from sequencer2d.training.loop import train

    fields = [*options.fields, f"run.time_limit_s={options.time_limit}"] if options.time_limit else options.fields
    job = options.plans[0], options.models[0], options.seeds[0]
    note_commit(options.runs / run_name(*job))
    try:
        train(configuration(*job, data=options.data, runs=options.runs, fields=fields))
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _plans(names: str) -> list[str]:
    plans = names.split(",")
    for name in plans:
        if name not in PLANS:
            raise argparse.ArgumentTypeError(f"no plan {name!r}; there are {', '.join(PLANS)}")
    return plans


def parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {SCRIPT}",
        description=benchmarks.tiny_imagenet.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plans", type=_plans, metavar="PLAN[,PLAN…]", help=f"some of {', '.join(PLANS)}")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the recipe, in every run")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="train/<class>/* and val/<class>/*")
    parser.add_argument("--about", action="store_true", help="say what the plan compares and how long it takes")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="some of the plans' models (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs to use (default: 1)")
    parser.add_argument("--per-gpu", type=int, default=1, help="runs at a time on each GPU (default: 1)")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="end, all runs saved, within this time")
    parser.add_argument(
        "--grace", type=float, default=30, metavar="SECONDS", help="for saving, at the end of that time (default: 30)"
    )
    parser.add_argument(
        "--shortest", type=float, default=60, metavar="SECONDS", help="start no run with less time left (default: 60)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny-imagenet"), metavar="FOLDER")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="FOLDER",
        help="of tiny-imagenet-PLAN.json (default: %(default)s)",
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser
