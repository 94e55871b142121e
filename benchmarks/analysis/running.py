"""Every figure and table of docs/analysis.md, from trained models and a data set.

python -m benchmarks.analysis runs/tiny_imagenet --peers runs/tiny_imagenet_convnext runs/tiny_imagenet_vit \
    --data /data/tiny-imagenet --device cuda --workers 16

Writes docs/figures/analysis-*.png (and a .gif), benchmarks/results/analysis-*.json and, with --report, an HTML report.
A part that fails does not stop the others; the exit code is then 1, as where --time-limit left parts out.
"""

import argparse
import math
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.analysis.parts import NAMES, PARTS, report
from benchmarks.analysis.writing import SCRIPT, Run, link_figures
from benchmarks.record import FIGURES, RESULTS, ROOT, command_line


def main(argv: list[str] | None = None) -> int:
    begun = time.monotonic()
    arguments = parse(argv)
    from sequencer2d.cli.common import resolve_device
    from sequencer2d.data.opening import open_source
    from sequencer2d.evaluation.subject import load_subject

    device = resolve_device(arguments.device)
    subjects = [load_subject(spec, download=True).to(device) for spec in (arguments.model, *arguments.peers)]
    source = open_source(arguments.data, arguments.split)
    print(f"loaded in {time.monotonic() - begun:.1f} s", flush=True)
    chosen = [part for part in PARTS if part.__name__ in (arguments.only or NAMES)]
    if not arguments.report:
        chosen = [part for part in chosen if part is not report]
    deadline = math.inf if arguments.time_limit is None else begun + arguments.time_limit
    return run_parts(chosen, Run(arguments, subjects, source), deadline)


def run_parts(parts: Sequence[Callable[[Run], None]], run: Run, deadline: float) -> int:
    """Run each part that can begin before `deadline` (of `time.monotonic`); 1 if one failed or was left out, else 0."""
    failed, left_out = [], []
    for part in parts:
        begun = time.monotonic()
        if begun >= deadline:
            left_out.append(part.__name__)
            continue
        print(f"{part.__name__} …", flush=True)
        try:
            part(run)
        except Exception:  # the parts are independent of each other, and all results before this one are written
            traceback.print_exc()
            failed.append(part.__name__)
        if run.arguments.figures.resolve() == FIGURES:
            link_figures(ROOT / "docs" / "analysis.md")
        outcome = "FAILED after" if part.__name__ in failed else "done in"
        print(f"{part.__name__} {outcome} {time.monotonic() - begun:.1f} s", flush=True)
    if left_out:
        print(f"not begun, the time limit had passed: {', '.join(left_out)} (run them with --only)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    return 1 if failed or left_out else 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {SCRIPT}", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="our checkpoint: file or run folder; LABEL@… names it")
    parser.add_argument("--peers", nargs="*", default=[], help="models beside it, as `sequencer2d analyze` takes them")
    parser.add_argument("--data", required=True, help="folder of labeled images, root/<split>/<class>/*")
    parser.add_argument("--split", default="val")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, default=2000, help="labeled images for each measurement (default: 2000)")
    parser.add_argument(
        "--images", type=int, default=200, help="images for receptive fields, memory, CKA (default: 200)"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that corrupt images (default: 0)")
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", type=Path, help="also write the HTML report to this file")
    parser.add_argument(
        "--only", nargs="*", choices=NAMES, metavar="PART", help=f"some parts only, of: {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="begin no part later than this; parts go by importance"
    )
    parsed = parser.parse_args(argv)
    parsed.command = command_line(SCRIPT, argv)
    return parsed
