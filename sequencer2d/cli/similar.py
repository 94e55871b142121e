"""`sequencer2d similar CHECKPOINT IMAGE --among FOLDER`: the nearest images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_checkpoint,
    add_device,
    add_download,
    add_json,
    check_images,
    console,
    need,
    positive,
    remark,
    writable_path,
)
from sequencer2d.cli.embed import add_batch_size, compute, load
from sequencer2d.cli.parsing import check_first
from sequencer2d.cli.writing import writing
from sequencer2d.errors import DataError
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    from sequencer2d.evaluation.features import Features
    from sequencer2d.evaluation.subject import Subject

    Neighbors = list[tuple[str, list[tuple[str, float]]]]

EPILOG = """\
examples:
  sequencer2d similar runs/photos photo.jpg --among photos/
  sequencer2d similar runs/photos photo.jpg --among photos.npz --top 12 --picture similar.png

Similarity is the cosine between features, -1 to 1. --among takes a folder, or a file that `sequencer2d embed` wrote
with the same model, which is faster. The image itself is left out of its own neighbors."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "similar",
        help="find the images that a model sees as most alike",
        description="Find the images whose features are nearest to those of an image.",
        epilog=EPILOG,
    )
    add_checkpoint(parser, peers=True)
    add_download(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images whose neighbors to find")
    parser.add_argument("--among", required=True, metavar="IMAGES", help="folder to search, or an .npz file of embed")
    parser.add_argument(
        "--top", type=positive, default=8, metavar="N", help="neighbors of each image, at most (default: 8)"
    )
    parser.add_argument(
        "--picture", type=writable_path, metavar="FILE", help="draw each image beside its neighbors, as a PNG file"
    )
    add_batch_size(parser)
    add_device(parser)
    add_json(parser)
    check_first(parser, check_images)
    check_first(parser, _check_among)
    parser.set_defaults(run=run)


def _check_among(arguments: argparse.Namespace) -> None:
    path = Path(arguments.among).expanduser()
    if not (path.is_dir() or (path.is_file() and path.suffix == ".npz")):
        raise DataError(f"--among {arguments.among}: expected a folder of images, or an .npz file that embed wrote")


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.finding import find_images

    if arguments.picture:
        need("matplotlib", "train", "--picture")
    subject = load(arguments)
    queries = compute(subject, [str(path) for path in find_images(arguments.images)], arguments)
    found = _neighbors(queries, _searched(arguments, subject), arguments.top)
    if arguments.json:
        rows = [{"path": p, "similar": [{"path": n, "similarity": round(s, 4)} for n, s in row]} for p, row in found]
        terminal.write_json(rows)
    else:
        _print(found)
    if arguments.picture:
        _draw(found, arguments.picture, subject.name)
    return 0


def _searched(arguments: argparse.Namespace, subject: Subject) -> Features:
    from sequencer2d.data.finding import find_images
    from sequencer2d.evaluation.features import Features, digest_of

    among = Path(arguments.among).expanduser()
    if among.is_dir():
        return compute(subject, [str(path) for path in find_images([among])], arguments)
    stored = Features.load(among)
    if stored.weights != digest_of(subject.model):
        raise DataError(f"{among} holds features of other weights ({stored.model}); embed the images again")
    return stored


def _neighbors(queries: Features, searched: Features, top: int) -> Neighbors:
    """(image, [(neighbor, similarity), …]) of each query."""
    from sequencer2d.evaluation.features import nearest

    indices, similarity = nearest(queries.vectors, searched.vectors, top + 1)
    files = [Path(path).resolve() for path in searched.paths]
    found = []
    for path, row, values in zip(queries.paths, indices, similarity, strict=True):
        own = Path(path).resolve()
        pairs = [(searched.paths[i], float(s)) for i, s in zip(row, values, strict=True) if files[i] != own]
        found.append((path, pairs[:top]))
    return found


def _print(found: Neighbors) -> None:
    from rich.text import Text

    table = plain_table("image", "similar", "similarity")
    for path, row in found:
        name = path
        for neighbor, similarity in row:
            table.add_row(Text(printable(name)), Text(printable(neighbor)), f"{similarity:.3f}")
            name = ""
    console().print(table)


def _draw(found: Neighbors, path: Path, model: str) -> None:
    from sequencer2d.analysis.neighbors import draw_neighbors

    with writing(path):
        draw_neighbors(found, path, model=model)
    remark(f"picture: {path}")
