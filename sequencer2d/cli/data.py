"""`sequencer2d data FOLDER`: what is in a folder of images, and what is wrong with it."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from sequencer2d import terminal
from sequencer2d.cli.common import add_folder, add_json, console, need, progress_bar, remark, writable_path
from sequencer2d.cli.writing import writing
from sequencer2d.errors import InputError, counted
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sequencer2d.data.survey import Survey

EXIT_FOUND = 4

EPILOG = f"""\
examples:
  sequencer2d data photos/                             classes, counts, sizes, and what is wrong
  sequencer2d data photos/ --picture samples.png       the same, with a picture of samples
  sequencer2d data photos/ --json > photos.json        everything that was found, every file by its path

FOLDER holds <class>/<images>, or train/, val/ and test/ with those. Every image is decoded. Duplicates are images with
the same pixels, whatever their names; resized or re-encoded copies are not found. Sizes are in pixels. Odd images
(very long, very small or large, of a single color, of another format than their name says) may well be right.

exit codes: 0 nothing is wrong; {EXIT_FOUND} there are broken files, duplicates, classes that a split lacks,
a single class, or classes of a single image"""
LISTED = 5
"""Most files of a kind that are listed."""
KINDS = {
    "splits": "several splits (accuracy on these says nothing)",
    "classes": "several classes (at most one label is right)",
    "within": "one class of one split",
}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "data",
        help="say what is in a folder of images, and what is wrong with it",
        description="Count the classes, sizes and modes of a folder of images; find broken, duplicate and odd ones.",
        epilog=EPILOG,
    )
    add_folder(parser)
    parser.add_argument(
        "--picture", type=writable_path, metavar="FILE", help="draw samples of up to 12 classes as a PNG file"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.survey import Survey, summary, survey

    if arguments.picture:
        need("matplotlib", "train", "--picture")
    total, images, splits = survey(arguments.folder)
    with progress_bar("images") as bar:
        found = Survey(
            arguments.folder, splits, tuple(bar.track(images, total=total, description=f"read {arguments.folder.name}"))
        )
    if arguments.json:
        terminal.write_json(summary(found))
    else:
        _print_counts(found)
        _print_sizes(found)
        _print_problems(found)
    if arguments.picture:
        _draw(found, arguments.picture)
    return 0 if found.is_clean else EXIT_FOUND


def _print_counts(found: Survey) -> None:
    table = plain_table("split", "images", "classes", "images per class", "broken")
    for split in found.splits:
        counts = sorted(found.counts(split).values())
        broken = sum(image.split == split for image in found.broken)
        spread = (
            f"{counts[0]:,} to {counts[-1]:,}, median {median(counts):g}" if len(set(counts)) > 1 else f"{counts[0]:,}"
        )
        table.add_row(split or "(none)", f"{sum(counts):,}", f"{len(counts):,}", spread, f"{broken:,}")
    console().print(table)
    first = found.counts(found.splits[0])
    by_size = sorted(first, key=lambda name: -first[name])
    shown = by_size if len(by_size) <= 4 * LISTED else [*by_size[:LISTED], "…", *by_size[-LISTED:]]
    terminal.write(
        "classes: " + ", ".join(f"{printable(name)} {first[name]:,}" if name in first else name for name in shown)
    )


def _print_sizes(found: Survey) -> None:
    if not found.readable:
        return
    width, height = (median(image.size[axis] for image in found.readable) for axis in (0, 1))
    sides = [image.side for image in found.readable]
    terminal.write(
        f"sizes: {width:g}×{height:g} pixels (median); shorter sides {min(sides)} to {max(sides)} pixels\n"
        f"modes: {_shares(image.mode for image in found.readable)}\n"
        f"formats: {_shares(image.format for image in found.readable)}"
    )


def _shares(values: Iterable[str]) -> str:
    counts = Counter(values)
    return ", ".join(f"{name} {count:,} ({count / counts.total():.1%})" for name, count in counts.most_common())


def _print_problems(found: Survey) -> None:
    from sequencer2d.data.survey import kind_of

    for split, names in found.missing_classes().items():
        if names:
            _list(f"{counted(len(names), 'class', 'classes')} that {split} lacks", names)
    _list(f"{len(found.broken):,} broken", [f"{image.path}: {image.error}" for image in found.broken])
    for kind, meaning in KINDS.items():
        groups = [group for group in found.duplicates if kind_of(group) == kind]
        lines = [" = ".join(image.path for image in group) for group in groups]
        _list(f"{counted(len(groups), 'image')} with copies, in {meaning}", lines)
    _list("not enough to train on", found.untrainable)
    _list(f"{len(found.odd):,} odd", [f"{image.path}: {reason}" for image, reason in found.odd])
    if found.is_clean:
        terminal.write("every image can be read, and there are no duplicates")


def _list(head: str, lines: list[str]) -> None:
    """Print a heading and the first lines below it; nothing if there are none."""
    if lines:
        more = [f"… {len(lines) - LISTED:,} more: --json lists them all"] if len(lines) > LISTED else []
        shown = [terminal.printable(line) for line in lines[:LISTED]]
        terminal.write("\n  ".join([f"{head}:", *shown, *more]))


def _draw(found: Survey, path: Path) -> None:
    from sequencer2d.analysis.samples import draw_samples

    if not found.readable:
        raise InputError("no image can be read, so there is nothing to draw; leave --picture out")
    split = found.splits[0]
    classes: dict[str, list[str]] = {}
    for image in found.readable:
        if image.split == split:
            classes.setdefault(image.class_name, []).append(image.path)
    where = f"{found.folder.resolve().name}/{split}" if split else found.folder.resolve().name
    title = (
        f"{where}: {counted(sum(map(len, classes.values())), 'image')} of {counted(len(classes), 'class', 'classes')}"
    )
    with writing(path):
        draw_samples(classes, path, title=title)
    remark(f"samples: {path}")
