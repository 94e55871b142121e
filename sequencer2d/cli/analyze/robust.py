"""`analyze resolution | attack | shifted | shape-texture`."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sequencer2d.cli.analyze import common, options
from sequencer2d.cli.common import add_decoding, add_json, positive
from sequencer2d.errors import ConfigError

if TYPE_CHECKING:
    from sequencer2d.data.sources import Source
    from sequencer2d.evaluation.attacks import AttackResult, AttackSettings
    from sequencer2d.evaluation.resolution import ResolutionResult
    from sequencer2d.evaluation.shape_texture import ShapeTextureResult
    from sequencer2d.evaluation.subject import Subject
    from sequencer2d.tasks.accuracy import ClassificationResult

SHIFTED = ("imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", "imagenet-real")


def add_parsers(kinds: options.Kinds) -> None:
    parser = options.new_parser(
        kinds, "resolution", "accuracy from half to double the input size, without fine-tuning", run_resolution
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=positive,
        metavar="PIXELS",
        help="sides (default: half to double the model's own, about an eighth of it apart)",
    )
    options.add_data(parser, None)
    options.add_output(parser, "resolution")
    add_json(parser)
    parser = options.new_parser(
        kinds, "attack", "accuracy under FGSM and PGD in L∞, by default as in the paper", run_attack
    )
    _add_attack_settings(parser)
    options.add_data(parser, None)
    options.add_output(parser, "attack")
    add_json(parser)
    parser = options.new_parser(
        kinds, "shifted", "accuracy on ImageNet-A, -R, -Sketch, -V2 or with ReaL labels", run_shifted
    )
    parser.add_argument("--set", required=True, choices=SHIFTED, help="which")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="its class folders")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N images (default: all)")
    parser.add_argument(
        "--common-classes", action="store_true", help="ask about the classes shared with the model only"
    )
    add_json(parser)
    parser = options.new_parser(
        kinds, "shape-texture", "shape against texture on images whose cues conflict", run_shape_texture
    )
    parser.add_argument("--images", metavar="FOLDER", help="cue-conflict images, named <shape>1-<texture>2.png")
    parser.add_argument("--categories", metavar="FILE", help="JSON, each category's outputs (default: ImageNet's 16)")
    parser.add_argument("--data", metavar="SOURCE", help="instead: labeled images, mixed by phase and amplitude")
    parser.add_argument("--split", default="val", help="split of --data (default: val)")
    parser.add_argument("--limit", type=positive, default=1000, metavar="N", help="images of --data (default: 1000)")
    parser.add_argument("--common-classes", action="store_true", help="leave out classes that the model does not have")
    add_decoding(parser)
    add_json(parser)


def run_resolution(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.arrays import save_arrays
    from sequencer2d.analysis.charts import resolution_chart

    source = common.source_of(arguments)
    results, rows = [], []
    for subject in common.subjects(arguments):
        result = sweep_sizes(subject, source, arguments, arguments.sizes)
        results.append(result)
        arrays = {name: value for name, value in vars(result).items() if name != "refused"}
        common.write(arguments, functools.partial(save_arrays, **arrays), result.model)
        rows += _resolution_rows(result)
    common.write_figure(resolution_chart(results), arguments)
    common.print_rows(rows, arguments.json)
    return 0


def sweep_sizes(
    subject: Subject, source: Source, arguments: argparse.Namespace, sizes: Sequence[int] | None = None
) -> ResolutionResult:
    """Accuracy at several input sizes, with a bar, and a remark for each size that the model does not take."""
    from sequencer2d.evaluation.resolution import default_sizes, resolution_sweep

    sizes = sizes or default_sizes(subject)
    total = len({*sizes, subject.data.size[0]}) * common.count_images(arguments, source)
    with common.progress(f"resolution of {subject.name}", total) as advance:
        result = resolution_sweep(
            subject, source, sizes, limit=arguments.limit, common_only=arguments.common_classes, progress=advance
        )
    for size, why in result.refused.items():
        common.remark(f"{result.model} does not take {size} pixels: {why}")
    return result


def _resolution_rows(result: ResolutionResult) -> list[dict[str, Any]]:
    """Accuracies in percent; none for sizes that the model does not take."""
    measured = zip(result.sizes, 100 * result.top1, 100 * result.relative, strict=True)
    rows = [(int(size), float(top1), float(relative)) for size, top1, relative in measured]
    names = ("size", "top-1, %", "relative, %")
    values = [*rows, *((size, None, None) for size in result.refused)]
    return [{"model": result.model, **dict(zip(names, row, strict=True))} for row in values]


def _add_attack_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--attacks", nargs="+", default=["fgsm", "pgd"], metavar="NAME", help="fgsm, pgd (default: both)"
    )
    parser.add_argument(
        "--preset",
        choices=("paper", "radii"),
        default="paper",
        help="paper: ε 1/255, 5 steps of 0.5/255 from a random start, every image; radii: ε 1, 4 and 8/255, 10 steps "
        "of 2.5 ε / 10 (default: paper); the options below replace its values",
    )
    parser.add_argument(
        "--epsilons",
        type=options.epsilons,
        metavar="LIST",
        help="radii in levels of 255, comma-separated, for example 1,4,8",
    )
    parser.add_argument("--steps", type=positive, metavar="N", help="of PGD")
    parser.add_argument(
        "--step-size",
        type=options.level,
        metavar="LEVELS",
        help="of PGD, in levels of 255 (default: the preset's; 2.5 ε / steps where --epsilons or --steps is given)",
    )
    parser.add_argument("--start", choices=("random", "image"), help="where PGD starts (default: random)")
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images attacked at once (default: 32)"
    )


def attack_settings(arguments: argparse.Namespace) -> AttackSettings:
    """The preset with what the command line replaces. A new radius or number of steps brings its own step size."""
    from sequencer2d.evaluation.attacks import PRESETS

    settings = PRESETS[arguments.preset]
    if arguments.epsilons or arguments.steps:
        settings = replace(
            settings,
            epsilons=arguments.epsilons or settings.epsilons,
            steps=arguments.steps or settings.steps,
            step_size=None,
        )
    if arguments.step_size is not None:
        settings = replace(settings, step_size=arguments.step_size)
    if arguments.start:
        settings = replace(settings, random_start=arguments.start == "random")
    return settings


def run_attack(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.arrays import save_arrays
    from sequencer2d.analysis.charts import attack_chart
    from sequencer2d.evaluation.attacks import attack_accuracy

    source, settings = common.source_of(arguments), attack_settings(arguments)
    for epsilon in settings.out_of_reach():
        common.remark(
            f"{settings.steps} steps of {255 * settings.step_for(epsilon):g}/255 cannot reach ε = "
            f"{255 * epsilon:g}/255: PGD is weaker than that radius says"
        )
    results, rows = [], []
    for subject in common.subjects(arguments):
        for attack in arguments.attacks:
            total = len(settings.epsilons) * common.count_images(arguments, source)
            with common.progress(f"{attack} on {subject.name}", total) as advance:
                result = attack_accuracy(
                    subject, source, attack, settings, limit=arguments.limit, batch_size=arguments.batch_size,
                    common_only=arguments.common_classes, progress=advance,
                )  # fmt: skip
            results.append(result)
            common.write(arguments, functools.partial(save_arrays, **vars(result)), f"{subject.name}-{attack}")
            rows.append(_attack_row(result))
    common.write_figure(attack_chart(results), arguments)
    common.print_rows(rows, arguments.json)
    return 0


def _attack_row(result: AttackResult) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": result.model,
        "attack": result.attack,
        "images": result.count,
        "steps": result.steps,
        "step, of 255": ", ".join(f"{255 * size:g}" for size in result.step_sizes),
        "start": "random" if result.random_start else "image",
        "clean, %": 100 * result.clean_accuracy,
    }
    for epsilon, accuracy in zip(result.epsilons, result.accuracy, strict=True):
        row[f"ε {255 * epsilon:g}/255, %"] = 100 * float(accuracy)
    return row


def run_shifted(arguments: argparse.Namespace) -> int:
    from sequencer2d.evaluation.shifted import evaluate_shifted, open_shifted

    shifted = open_shifted(arguments.set, arguments.data)
    rows = []
    total = common.count_images(arguments, shifted.source)
    for subject, advance in common.each_subject(arguments, f"{arguments.set} by", total):
        result = evaluate_shifted(
            subject, shifted, limit=arguments.limit, common_only=arguments.common_classes, progress=advance
        )
        rows.append({"model": subject.name, "set": arguments.set, **_shifted_row(result)})
    common.print_rows(rows, arguments.json)
    return 0


def _shifted_row(result: ClassificationResult) -> dict[str, Any]:
    """Numbers of classes and images, and the percentages, which the result holds as such."""
    return {
        "classes": len(result.class_names),
        "images": result.count,
        "top-1, %": result.top1,
        "top-5, %": result.top5,
        "ECE, %": result.calibration_error,
    }


def run_shape_texture(arguments: argparse.Namespace) -> int:
    from sequencer2d.evaluation.shape_texture import cue_conflict, spectral_conflict
    from sequencer2d.files import read_json

    if bool(arguments.images) == bool(arguments.data):
        raise ConfigError(
            "give --images (a folder of cue-conflict images) or --data (labeled images to mix), one of them"
        )
    rows = []
    categories = read_json(arguments.categories) if arguments.categories else None
    source = common.source_of(arguments) if arguments.data else None
    total = common.count_images(arguments, source) if source else None
    for subject, advance in common.each_subject(arguments, "shape and texture by", total):
        if source is None:
            result = cue_conflict(subject, arguments.images, categories=categories, progress=advance)
        else:
            result = spectral_conflict(
                subject, source, limit=arguments.limit, common_only=arguments.common_classes, progress=advance
            )
        rows.append(_shape_texture_row(result))
    common.print_rows(rows, arguments.json)
    return 0


def _shape_texture_row(result: ShapeTextureResult) -> dict[str, Any]:
    """Decisions, and in percent how often they were for either cue, and for the shape among these."""
    return {
        "model": result.model,
        "images": result.count,
        "shape": result.shape,
        "texture": result.texture,
        "other": result.other,
        "either cue, %": 100 * result.cue_accuracy,
        "shape bias, %": None if result.shape_bias is None else 100 * result.shape_bias,
    }
