"""The options that sub-verbs of `analyze` share, and how their texts are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sequencer2d.choices import OUTPUT_LAYOUTS
from sequencer2d.cli.analyze.common import made_from, models_of
from sequencer2d.cli.analyze.examples import epilog
from sequencer2d.cli.analyze.outputs import check_files
from sequencer2d.cli.common import (
    add_decoding,
    add_download,
    check_data,
    check_device,
    check_images,
    positive,
    writable_path,
)
from sequencer2d.cli.parsing import check_first

Kinds = Any
FORMATS = ("pdf", "svg", "png")


def new_parser(
    kinds: Kinds,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
    *,
    several: bool = True,
    models: tuple[str, ...] = (),
) -> argparse.ArgumentParser:
    """A sub-verb with MODEL (or several, by default `models` if there are any), --device and --image-size."""
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog(name)
    )
    if models:
        parser.add_argument(
            "models", nargs="*", metavar="MODEL", default=list(models),
            help=f"models; see: sequencer2d analyze --help (default: the paper's, {' '.join(models)})",
        )  # fmt: skip
    elif several:
        parser.add_argument("models", nargs="+", metavar="MODEL", help="models; see: sequencer2d analyze --help")
    else:
        parser.add_argument("model", metavar="MODEL", help="a model; see: sequencer2d analyze --help")
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:INDEX (default: auto)"
    )
    parser.add_argument(
        "--image-size", type=positive, metavar="PIXELS", help="side of the input (default: the model's own)"
    )
    add_download(parser)
    check_first(parser, _check_models)
    check_first(parser, check_device)
    parser.set_defaults(run=run)
    return parser


def add_images(parser: argparse.ArgumentParser, limit: int | None, usual: str = "") -> None:
    """--images, --limit: images without labels; `usual` says how many there are by default where `limit` does not."""
    parser.add_argument("--images", nargs="+", required=True, metavar="PATH", help="image files, or folders of them")
    check_first(parser, check_images)
    add_decoding(parser)
    parser.add_argument(
        "--limit",
        type=positive,
        default=limit,
        metavar="N",
        help=f"at most N images, drawn at random (default: {usual or limit})",
    )


def add_data(parser: argparse.ArgumentParser, limit: int | None, *, required: bool = True, use: str = "") -> None:
    """--data, --split, --limit, --common-classes: labeled images; `use` says what they are for where they may lack."""
    parser.add_argument(
        "--data", required=required, metavar="SOURCE", help=f"folder of labeled images, or another data source{use}"
    )
    check_first(parser, check_data)
    parser.add_argument(
        "--split", default="val", help="its split; '' if the classes stand in the folder itself (default: val)"
    )
    parser.add_argument(
        "--limit", type=positive, default=limit, metavar="N", help=f"at most N images (default: {limit or 'all'})"
    )
    add_decoding(parser)
    parser.add_argument("--common-classes", action="store_true", help="leave out classes that the model does not have")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """--workers: of what corrupts images."""
    parser.add_argument(
        "--workers", type=natural, default=0, metavar="N", help="processes that corrupt images (default: 0, this one)"
    )


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """--output, --formats."""
    parser.add_argument(
        "--output", type=writable_path, default="analysis", metavar="FOLDER", help="where files go (default: analysis)"
    )
    parser.add_argument("--name", default=default, help=f"what the files are called (default: {default})")
    parser.add_argument(
        "--formats",
        type=figure_formats,
        default="pdf,svg,png",
        metavar="LIST",
        help="of the figure, among pdf, svg, png (default: all three)",
    )
    check_first(parser, lambda arguments: check_files(arguments, made_from(arguments)))


def add_blocks(parser: argparse.ArgumentParser, *, several: bool = True) -> None:
    """--blocks or --block, --layout."""
    if several:
        parser.add_argument(
            "--blocks", nargs="+", metavar="NAME", help="modules, e.g. stages.0.blocks.1 (default: one a stage)"
        )
    else:
        parser.add_argument("--block", metavar="NAME", help="a module, e.g. stages.0.blocks.1")
    parser.add_argument(
        "--layout",
        choices=OUTPUT_LAYOUTS,
        help="of the blocks' outputs; needed only where it cannot be found",
    )


def _check_models(arguments: argparse.Namespace) -> None:
    from sequencer2d.models.specs import check_spec

    for spec in models_of(arguments):
        check_spec(spec)


def epsilons(text: str) -> tuple[float, ...]:
    """Radii as parts of the range of values, of "1,4,8" levels of 255."""
    values = tuple(_number(part) for part in text.split(","))
    if not all(0 <= value <= 255 for value in values):
        raise argparse.ArgumentTypeError(f"expected levels between 0 and 255 such as 1,4,8, got {text!r}")
    return tuple(value / 255 for value in values)


def level(text: str) -> float:
    """A step as a part of the range of values, of "0.5" levels of 255; above 0."""
    value = _number(text)
    if not 0 < value <= 255:
        raise argparse.ArgumentTypeError(f"expected levels above 0 and at most 255 such as 0.5, got {text!r}")
    return value / 255


def _number(text: str) -> float:
    """A number, or -1 for what is none."""
    try:
        return float(text)
    except ValueError:
        return -1.0


def figure_formats(text: str) -> tuple[str, ...]:
    """The names in "pdf, png". A wrong one is refused before the work is done, not after it."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if name not in FORMATS]
    if wrong or not names:
        raise argparse.ArgumentTypeError(
            f"no figure format {wrong[0] if wrong else text!r}; choose among {', '.join(FORMATS)}"
        )
    return names


def natural(text: str) -> int:
    """An argument that is an integer of at least 0."""
    return 0 if text.strip() == "0" else positive(text)
