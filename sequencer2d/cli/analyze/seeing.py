"""`analyze erf | hidden-states | memory | cka | grad-cam`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sequencer2d.cli.analyze import common, options
from sequencer2d.cli.common import add_decoding, check_images
from sequencer2d.cli.parsing import check_first
from sequencer2d.errors import DataError

FIGURE_5 = (
    "timm:resnet50.a1_in1k",
    "timm:deit_small_patch16_224.fb_in1k",
    "hf-hub:timm/sequencer2d_s.in1k",
)
"""The models of the paper's Figure 5."""


def add_parsers(kinds: options.Kinds) -> None:
    parser = options.new_parser(
        kinds, "erf", "effective receptive fields of blocks, drawn and measured (Figure 5)", run_erf, models=FIGURE_5
    )
    parser.add_argument(
        "--method",
        nargs="+",
        choices=("energy", "paper"),
        default=["energy"],
        help="energy: mean over images of the squared gradient, each map scaled to its own maximum; paper: as the "
        "authors' Figure 5, log10(1 + sum of the positive gradients) of 34 training-augmented images, all maps scaled "
        "by one minimum and maximum; both names draw both (default: energy)",
    )
    options.add_blocks(parser)
    options.add_images(parser, None, "50 for energy, 34 for paper")
    options.add_output(parser, "erf")
    parser = options.new_parser(
        kinds, "hidden-states", "what the LSTMs of a block put out for an image", run_hidden_states, several=False
    )
    parser.add_argument("--images", required=True, metavar="FILE", help="the image")
    check_first(parser, _check_one_image)
    add_decoding(parser)
    parser.add_argument("--block", metavar="NAME", help="a block (default: the last one of the first stage)")
    parser.add_argument(
        "--channels", nargs="+", type=int, metavar="N", help="channels to show (default: the most active)"
    )
    parser.add_argument(
        "--animate", action="store_true", help="also write a GIF of the recurrences running over the image"
    )
    options.add_output(parser, "hidden-states")
    parser = options.new_parser(kinds, "memory", "how far memory reaches: forget gates and half-lives", run_memory)
    options.add_images(parser, 50)
    options.add_output(parser, "memory")
    parser = options.new_parser(kinds, "cka", "similarity of layers: of a model with itself, and with others", run_cka)
    options.add_images(parser, 500)
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images of a mini-batch, 4 or more (default: 32)"
    )
    options.add_output(parser, "cka")
    parser = options.new_parser(
        kinds, "grad-cam", "which part of an image speaks for a class", run_grad_cam, several=False
    )
    options.add_blocks(parser, several=False)
    parser.add_argument(
        "--target", type=int, metavar="CLASS", help="number of the class (default: the most probable one)"
    )
    options.add_images(parser, 8)
    options.add_output(parser, "grad-cam")


def run_erf(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.erf import method_images, receptive_fields
    from sequencer2d.analysis.figures import receptive_field_grid

    loaded, rows, methods = common.subjects(arguments), [], tuple(dict.fromkeys(arguments.method))
    for method in methods:
        models = []
        for subject in loaded:
            pixels = method_images(subject, arguments.images, method, limit=arguments.limit)
            with common.progress(f"receptive fields of {subject.name}", len(pixels)) as advance:
                fields = receptive_fields(
                    subject, pixels, arguments.blocks, method=method, layout=arguments.layout, progress=advance
                )
            models.append(fields)
        part = method if len(methods) > 1 else ""
        for field in (field for fields in models for field in fields):
            common.write(arguments, field.save, "-".join(filter(None, (part, field.model, field.block))))
            rows.append(field.row())
        common.write_figure(receptive_field_grid(models), arguments, part)
    common.print_rows(rows)
    return 0


def _check_one_image(arguments: argparse.Namespace) -> None:
    if Path(arguments.images).is_dir():
        folder = arguments.images.rstrip("/")
        raise DataError(f"{arguments.images} is a folder: give one image, such as {folder}/photo.jpg")
    check_images(arguments)


def run_hidden_states(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.animation import running_animation
    from sequencer2d.analysis.figures import hidden_state_figure
    from sequencer2d.analysis.hidden_states import check_channels, hidden_states
    from sequencer2d.evaluation.pixels import read_images

    subject = common.subjects(arguments)[0]
    states = hidden_states(subject, read_images([arguments.images], subject.data)[0], arguments.block)
    if arguments.channels:
        check_channels(arguments.channels, min(maps.shape[-1] for _, maps in states.rows()))
    common.write(arguments, states.save)
    common.write_figure(hidden_state_figure(states, arguments.channels), arguments)
    if arguments.animate:
        common.write(arguments, lambda path: running_animation(states, path), suffix=".gif")
    return 0


def run_memory(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.figures import memory_figure
    from sequencer2d.analysis.memory import memory_reach

    rows = []
    for subject in common.subjects(arguments):
        pixels = common.images_for(subject, arguments)
        with common.progress(f"memory of {subject.name}", len(pixels)) as advance:
            reach = memory_reach(subject, pixels, progress=advance)
        common.write(arguments, reach.save, subject.name)
        common.write_figure(memory_figure(reach), arguments, subject.name)
        for scan in reach.scans:
            low, middle, high = (float(value) for value in scan.quantiles())
            rows.append({"model": reach.model, "block": scan.block, "direction": scan.direction,
                         "half-life, tokens": middle, "10 % of units, tokens": low, "90 %, tokens": high,
                         "half-life, pixels": middle * scan.stride})  # fmt: skip
    common.print_rows(rows)
    return 0


def run_cka(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.cka import similarity
    from sequencer2d.analysis.figures import similarity_figure

    models = common.subjects(arguments)
    images = [common.images_for(subject, arguments) for subject in models]
    results = []
    for subject, pixels in zip(models, images, strict=True):
        with common.progress(f"{models[0].name} and {subject.name}", len(pixels)) as advance:
            result = similarity(
                models[0],
                subject,
                images[0],
                None if subject is models[0] else pixels,
                batch_size=arguments.batch_size,
                progress=advance,
            )
        common.write(arguments, result.save, f"{models[0].name}-{subject.name}")
        results.append(result)
    common.write_figure(similarity_figure(results), arguments)
    return 0


def run_grad_cam(arguments: argparse.Namespace) -> int:
    from sequencer2d.analysis.attribution import grad_cam
    from sequencer2d.analysis.figures import attribution_figure
    from sequencer2d.evaluation.pixels import chosen_images, read_images, truths_of

    subject = common.subjects(arguments)[0]
    files = chosen_images(arguments.images, arguments.limit)
    result = grad_cam(
        subject,
        read_images(files, subject.data),
        arguments.block,
        target=arguments.target,
        layout=arguments.layout,
        truths=truths_of(subject, files),
    )
    common.write(arguments, result.save)
    common.write_figure(attribution_figure(result, subject.class_names), arguments)
    return 0
