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
from sequencer2d.cli.analyze.outputs import claim_files
from sequencer2d.cli.common import (
    console,
    decoding_fields,
    progress_bar,
    remark,
    resolve_device,
)
from sequencer2d.cli.writing import writing
from sequencer2d.errors import ConfigError
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    import numpy as np

    from sequencer2d.data.sources import Source
    from sequencer2d.evaluation.subject import Subject


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
