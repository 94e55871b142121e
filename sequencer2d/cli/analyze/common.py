"""What the sub-verbs of `analyze` share: models, images, output files, progress."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.choices import OUTPUT_LAYOUTS
from sequencer2d.cli.analyze.examples import epilog
from sequencer2d.cli.analyze.outputs import check_files, claim_files
from sequencer2d.cli.common import (
    add_decoding,
    add_download,
    check_data,
    check_device,
    check_images,
    console,
    decoding_fields,
    positive,
    progress_bar,
    remark,
    resolve_device,
    writable_path,
)
from sequencer2d.cli.parsing import check_first
from sequencer2d.cli.writing import writing
from sequencer2d.errors import ConfigError
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    import numpy as np

    from sequencer2d.data.sources import Source
    from sequencer2d.evaluation.subject import Subject

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


def models_of(arguments: argparse.Namespace) -> list[str]:
    """What the command line calls its models: several, or the one."""
    return arguments.models if "models" in arguments else [arguments.model]


def made_from(arguments: argparse.Namespace) -> list[str]:
    """What the outputs of a command line are about: its models, or the files of what was measured."""
    files = [*(getattr(arguments, "accuracy", None) or ()), getattr(arguments, "speed", None)]
    models = models_of(arguments) if {"models", "model"} & vars(arguments).keys() else []
    return [*models, *(str(file) for file in files if file is not None)]


def subjects(arguments: argparse.Namespace, *, any_task: bool = False) -> list[Subject]:
    """The models of the command line, loaded, on their device; classifiers, unless `any_task`."""
    from sequencer2d.evaluation.subject import load_subject
    from sequencer2d.tasks import CLASSIFICATION

    device = resolve_device(arguments.device)
    specs = models_of(arguments)
    options = {"num_classes": getattr(arguments, "random_classes", None), "download": arguments.download}
    loaded = [load_subject(spec, **options).to(device) for spec in specs]
    names = [subject.name for subject in loaded]
    others = [subject for subject in loaded if subject.task is not CLASSIFICATION]
    if others and not any_task:
        raise ConfigError(f"{others[0].name} is a model for {others[0].task.name}; analyze takes classifiers")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"{len(twice)} models are called {twice[0]!r}, and their files would be, too; name them, for example "
            f"first@{specs[names.index(twice[0])]}"
        )
    chosen: dict[str, Any] = decoding_fields(arguments) if "orientation" in arguments else {}
    if arguments.image_size:
        chosen["image_size"] = arguments.image_size
    return [dataclasses.replace(subject, data=dataclasses.replace(subject.data, **chosen)) for subject in loaded]


def images_for(subject: Subject, arguments: argparse.Namespace) -> np.ndarray:
    """The images of --images as the subject takes them."""
    from sequencer2d.evaluation.pixels import read_images

    return read_images(arguments.images, subject.data, limit=arguments.limit)


def source_of(arguments: argparse.Namespace) -> Source:
    """The labeled images of --data."""
    from sequencer2d.data.config import DataConfig
    from sequencer2d.data.opening import open_source

    decoding = DataConfig(**decoding_fields(arguments)).decoding
    return open_source(arguments.data, arguments.split, decoding=decoding)


@contextlib.contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar of images on standard error; without a total it only counts."""
    with progress_bar("images") as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


def each_subject(
    arguments: argparse.Namespace, what: str, total: int | None
) -> Iterator[tuple[Subject, Callable[[int], None]]]:
    """The models of the command line, each with the function that moves its bar of `total` images: "WHAT NAME"."""
    for subject in subjects(arguments):
        with progress(f"{what} {subject.name}", total) as advance:
            yield subject, advance


def count_images(arguments: argparse.Namespace, source: Sized) -> int:
    """How many images of a source --limit leaves."""
    return min(arguments.limit or len(source), len(source))


@contextlib.contextmanager
def parts_progress(description: str, parts: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """A bar on standard error for work in parts of unknown size.

    Yields two functions: one takes the title of the part that begins, the other the number of images just done.
    """
    with progress_bar("images") as bar:
        task, titles = bar.add_task(description, total=None), itertools.count(1)

        def on_part(title: str) -> None:
            bar.reset(task, description=f"{description} {next(titles)}/{parts}: {title}", total=None)

        yield on_part, lambda count: bar.advance(task, count)


def output_path(arguments: argparse.Namespace, suffix: str, part: str = "") -> Path:
    """FOLDER/NAME[-part]suffix."""
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in part)
    return Path(arguments.output) / f"{arguments.name}{'-' + safe if part else ''}{suffix}"


def write(arguments: argparse.Namespace, save: Callable[[Path], None], part: str = "", suffix: str = ".npz") -> None:
    """Let a result save itself as FOLDER/NAME[-part]suffix and say where."""
    path = output_path(arguments, suffix, part)
    with writing(path):
        claim_files(arguments, made_from(arguments))
        save(path)
    say(path)


def write_figure(figure: Any, arguments: argparse.Namespace, part: str = "") -> None:
    """Save a figure in the formats of --formats and say where."""
    from sequencer2d.analysis.figure_files import save_figure

    first = output_path(arguments, ".png", part)
    with writing(first):
        claim_files(arguments, made_from(arguments))
        paths = save_figure(figure, first, arguments.formats)
    for path in paths:
        say(path)


def say(path: Path) -> None:
    """Name a file that was written."""
    remark(f"wrote {path}")


def print_rows(rows: list[dict[str, Any]], as_json: bool = False) -> None:
    """A table with the keys of the first row as titles, or JSON."""
    if as_json:
        terminal.write_json(rows)
        return
    table = plain_table(*rows[0])
    for row in rows:
        table.add_row(
            *(
                "–" if value is None else f"{value:.3g}" if isinstance(value, float) else printable(value)
                for value in row.values()
            )
        )
    console().print(table, markup=False)


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
