"""`sequencer2d pack FOLDER OUTPUT`: a folder of images as shards that are read from a web server or S3."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sequencer2d.cli.common import add_folder, console, positive, progress_bar, remark
from sequencer2d.errors import DataError
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    from sequencer2d.data.packed.writing import Packed

EPILOG = """\
examples:
  sequencer2d pack photos/ shards/
  sequencer2d pack photos/ shards/ --shard-mb 256      fewer, larger files, for millions of images

FOLDER holds <class>/<images>, or train/, val/ and test/ with those. OUTPUT gets tar files in WebDataset's layout, a
table for each split, and index.json with the checksum of every file. Images are copied as they are, in a random order
that is always the same. Upload OUTPUT as it is, and train from where it lies then:

  sequencer2d train RECIPE data.source=https://server/shards
  sequencer2d train RECIPE data.source=s3://bucket/shards
  sequencer2d train RECIPE data.source=file:///disk/shards"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "pack",
        help="pack a folder of images into shards that are streamed from a server",
        description="Pack a folder of images into shards, which training then fetches from a web server or S3.",
        epilog=EPILOG,
    )
    add_folder(parser)
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder to write, new or empty")
    parser.add_argument(
        "--shard-mb", type=positive, default=64, metavar="MB", help="size of a shard at most, in MB (default: 64)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.packed.writing import open_splits, pack

    if arguments.output.resolve().is_relative_to(arguments.folder.resolve()):
        raise DataError(
            f"{arguments.output} lies in {arguments.folder}, where it would be taken for a class; "
            "give a folder beside it"
        )
    splits = open_splits(arguments.folder)
    with progress_bar("images") as bar:
        task = bar.add_task(f"pack {arguments.folder.name}", total=sum(map(len, splits.values())))
        packed = pack(
            splits,
            arguments.output,
            shard_bytes=arguments.shard_mb * 10**6,
            advance=lambda: bar.advance(task),
        )
    _print(packed)
    remark(f"upload {arguments.output} as it is; its address is data.source then")
    return 0


def _print(packed: list[Packed]) -> None:
    table = plain_table("split", "images", "shards", "GB")
    for split in packed:
        table.add_row(split.split, f"{split.images:,}", f"{split.shards:,}", f"{split.bytes / 1e9:.3g}")
    console().print(table)
