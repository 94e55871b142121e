"""The options of `sequencer2d bench`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from sequencer2d.cli.common import add_json, add_trust, positive, writable_path

LAYOUTS = ("workloads", "table1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what to measure, how the measurement runs, and what is shown of it."""
    _add_choice(parser)
    _add_run_options(parser)
    _add_report_options(parser)
    add_json(parser)


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
    parser.add_argument("--shard", type=_shard, metavar="I/N", help="measure the Ith of N parts only, from 1")
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:INDEX (default: auto)"
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=writable_path, metavar="FILE", help="result file, JSON (default: bench-<device>.json here)"
    )
    parser.add_argument("--force", action="store_true", help="start the result file anew")
    parser.add_argument("--retry", action="store_true", help="measure again what failed before")
    parser.add_argument(
        "--turns",
        type=Path,
        metavar="FOLDER",
        help="share the device with other processes that are given the same folder: each takes the next case, they "
        "compile side by side, and all others stand still while one is timed",
    )
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="begin no new row after this time")
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="SECONDS", help="how long a row's steps are timed (default: 1)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be measured and stop")


def _add_report_options(parser: argparse.ArgumentParser) -> None:
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


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"expected names separated by commas, got {text!r}")
    return names


def _integers(text: str) -> list[int]:
    return [positive(part) for part in _names(text)]


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/8, got {text!r}")
    return int(match[1]), int(match[2])
