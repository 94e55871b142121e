"""`analyze figure1 | figure3`: figures of the paper, from its published numbers and from what was measured here."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from sequencer2d.cli.analyze import common, options
from sequencer2d.cli.analyze.examples import epilog
from sequencer2d.cli.analyze.robust import sweep_sizes
from sequencer2d.cli.common import add_json, need, positive, progress_bar, resolve_device
from sequencer2d.errors import ConfigError

if TYPE_CHECKING:
    from sequencer2d.benchmark import Contender
    from sequencer2d.evaluation.resolution import ResolutionResult
    from sequencer2d.evaluation.subject import Subject

FIGURE3_MODELS = (
    "hf-hub:timm/sequencer2d_s.in1k",
    "timm:deit_small_patch16_224.fb_in1k",
    "timm:convnext_tiny.fb_in1k",
)
"""The models of the paper's Figure 3 c and d."""

PAPER_BATCH = 16
MULTIPLES = (1, 2, 3, 4)
"""Sizes of the panels c and d, in multiples of the first model's own: 224, 448, 672 and 896 pixels in the paper."""


def add_parsers(kinds: options.Kinds) -> None:
    text = "the paper's Figure 1: accuracy against parameters, published and measured here"
    parser = kinds.add_parser(
        "figure1", help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog("figure1")
    )
    parser.add_argument(
        "--accuracy",
        nargs="+",
        default=[],
        metavar="FILE",
        help="what `sequencer2d eval MODEL --json` wrote, to be drawn as stars (default: published numbers only)",
    )
    options.add_output(parser, "figure1")
    add_json(parser)
    parser.set_defaults(run=run_figure1)
    parser = options.new_parser(
        kinds,
        "figure3",
        "the paper's Figure 3: accuracy, peak memory and throughput against the resolution",
        run_figure3,
        models=FIGURE3_MODELS,
    )
    options.add_data(parser, None, required=False, use=" (for the panels a and b; without it c and d alone)")
    parser.add_argument(
        "--speed",
        metavar="FILE",
        help="panels c and d from a result of `sequencer2d bench` (default: measured here, in fp32, eagerly)",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=PAPER_BATCH, metavar="N", help="images a batch in c and d (default: 16)"
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, metavar="SECONDS", help="how long each speed is timed (default: 1)"
    )
    options.add_output(parser, "figure3")
    add_json(parser)


def run_figure1(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.paper_figures import accuracy_figure, accuracy_points
    from sequencer2d.benchmark import read_accuracies

    points = accuracy_points(read_accuracies(arguments.accuracy))
    common.write_figure(accuracy_figure(points), arguments)
    rows = [
        {"model": p.name, "family": p.family, "parameters, M": p.parameters, "top-1, %": p.top1, "source": p.source}
        for p in sorted(points, key=lambda point: point.parameters)
    ]
    common.print_rows(rows, arguments.json)
    return 0


def run_figure3(arguments: argparse.Namespace) -> int:
    need("matplotlib", "analysis", "figure3")
    from sequencer2d.analysis.paper_figures import references, resolution_figure
    from sequencer2d.benchmark import read_result
    from sequencer2d.benchmark.curves import curves

    models = common.subjects(arguments) if arguments.data or not arguments.speed else []
    result = read_result(arguments.speed) if arguments.speed else _speed(models, arguments)
    source = common.source_of(arguments) if arguments.data else None
    accuracies = [sweep_sizes(subject, source, arguments) for subject in models] if source is not None else []
    chosen = [row for row in result["rows"] if row["form"] == "paper"] or result["rows"]
    fixed = {"mode": "inference", "batch": arguments.batch_size}
    memory = curves(chosen, "size", "lowest_memory_mib", **fixed)
    rates = curves(chosen, "size", "images_per_s", **fixed)
    if not rates and not accuracies:
        where = arguments.speed or "the benchmark"
        raise ConfigError(
            f"{where} has no rate in inference with {arguments.batch_size} images a batch; see --batch-size"
        )
    form = "fp32, eager" if chosen[0]["form"] == "paper" else "each at its best"
    figure = resolution_figure(
        accuracies,
        memory,
        rates,
        about=f"{form}, {result['device']['name']}",
        batch=arguments.batch_size,
        published=references(chosen) if arguments.batch_size == PAPER_BATCH else None,
    )
    common.write_figure(figure, arguments)
    common.print_rows(_rows(accuracies, memory, rates), arguments.json)
    return 0


def _speed(models: list[Subject], arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure memory and throughput by the paper's protocol; the rows are kept beside the figure and not made twice."""
    from sequencer2d.benchmark import PAPER, ResultFile, make_cases, read_result, result_header, run

    device = resolve_device(arguments.device)
    path = common.output_path(arguments, ".json", "speed")
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = make_cases(
        [_contender(subject) for subject in models],
        modes=["inference"],
        dtypes=["fp32"],
        batches=[arguments.batch_size],
        sizes=[multiple * models[0].data.size[0] for multiple in MULTIPLES],
        form_names=[PAPER],
    )
    results = ResultFile(path, result_header(path.stem, device, " ".join(["sequencer2d", *sys.argv[1:]])))
    with progress_bar("rows") as bar:
        task = bar.add_task("limits of the device", total=len(cases))
        run(
            cases,
            results,
            device,
            measure_s=arguments.seconds,
            on_start=lambda case, form: bar.update(task, description=str(case)),
            on_row=lambda row: bar.advance(task),
        )
    common.say(path)
    for row in results.rows.values():
        if row["error"]:
            common.remark(f"{row['model']} at {row['size']} pixels: {row['error']}")
    return read_result(path)


def _contender(subject: Subject) -> Contender:
    """The benchmark's contender for a model.

    Raises:
        ConfigError: a model whose sizes differ from those of the variant that it is named after.
    """
    from sequencer2d.benchmark import parse_contender
    from sequencer2d.models.variants import VARIANTS, changed_options

    name = subject.architecture
    config = getattr(subject.model, "config", None)
    changed = sorted(changed_options(config, name)) if config is not None and name in VARIANTS else []
    if changed:
        raise ConfigError(
            f"{subject.name} differs from {name} in {', '.join(changed)}, and speed is measured by a variant's name: "
            "draw the accuracy alone with `sequencer2d analyze resolution`, or give --speed FILE"
        )
    return parse_contender(name)


def _rows(
    accuracies: list[ResolutionResult], memory: dict[str, list[Any]], rates: dict[str, list[Any]]
) -> list[dict[str, Any]]:
    rows = [
        {"model": result.model, "size": int(size), "quantity": quantity, "value": 100 * float(value)}
        for result in accuracies
        for quantity, values in (("top-1, %", result.top1), ("relative, %", result.relative))
        for size, value in zip(result.sizes, values, strict=True)
    ]
    rows += [
        {"model": model, "size": size, "quantity": quantity, "value": round(value) if value >= 100 else value}
        for quantity, lines in (("peak memory, MiB", memory), ("images/s", rates))
        for model, points in lines.items()
        for size, value in points
    ]
    return rows
