"""`sequencer2d bench input`: what the input pipeline delivers beside what the model takes."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import add_json, console, field_values, positive, progress_bar, remark, writable_path
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    from sequencer2d.training.config import TrainConfig

EPILOG = """\
examples:
  sequencer2d bench input                                   imagenet_s on photos of 500x375 pixels
  sequencer2d bench input imagenet_s data.resampler=torch --workers 16
  sequencer2d bench input cifar10 --photo 32x32
  sequencer2d bench input imagenet_s data.root=/imagenet    with your images, read from your disk

Photos are parts of the two that scikit-learn brings, as JPEG files in memory. Times of a core are CPU time."""

PHOTO = (500, 375)
BATCH = 256


def add_parser(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("recipe", nargs="?", default="imagenet_s", metavar="RECIPE", help="default: imagenet_s")
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the configuration")
    parser.add_argument(
        "--photo", type=_size, default=PHOTO, metavar="WxH", help="pixels of the photos (default: 500x375)"
    )
    parser.add_argument(
        "--batch", type=positive, metavar="N", help=f"images a process takes in a step (default: {BATCH})"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="processes that read (default: one a core)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="SECONDS", help="of each row (default: 2)")
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--model",
        action=argparse.BooleanOptionalAction,
        help="time the training step, too (default: on a GPU)",
    )
    parser.add_argument("--output", type=writable_path, metavar="FILE", help="write a result file, JSON")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.benchmark.provenance import provenance
    from sequencer2d.cli.bench.planning import command
    from sequencer2d.files import write_json
    from sequencer2d.training.distributed import choose_device
    from sequencer2d.training.feeding import input_rows

    device = choose_device(arguments.device)
    config = resolve(arguments)
    model = arguments.model if arguments.model is not None else device.type == "cuda"
    rows = []
    with progress_bar("rows") as progress:
        task = progress.add_task("input", total=None)
        for row in input_rows(config, arguments.photo, device, seconds=arguments.seconds, model=model):
            rows.append(row)
            progress.advance(task)
    if arguments.json:
        terminal.write_json(rows)
    else:
        console().print(_table(rows))
        _conclude(rows)
    if arguments.output:
        from sequencer2d.training.fields import to_dict

        name = arguments.output.stem
        write_json(
            arguments.output, {**provenance(name), "command": command(), "config": to_dict(config), "rows": rows}
        )
    return 0


def resolve(arguments: argparse.Namespace) -> TrainConfig:
    """The recipe with the fields of the command line. Raises `ConfigError`."""
    from sequencer2d import recipes
    from sequencer2d.cli.common import FIELD
    from sequencer2d.training.fields import with_overrides

    recipe, fields = arguments.recipe, arguments.fields
    if FIELD.match(recipe):
        recipe, fields = "imagenet_s", [recipe, *fields]
    config = with_overrides(recipes.get(recipe), field_values(fields))
    data = config.data
    batch = arguments.batch or min(BATCH, data.batch_size)
    data = dataclasses.replace(data, batch_size=batch, workers=arguments.workers or data.workers)
    return dataclasses.replace(config, data=data)


def _table(rows: list[dict[str, Any]]) -> Any:
    table = plain_table("part")
    for title in ("on", "ms an image", "images/s"):
        table.add_column(title, justify="right")
    for row in rows:
        where = f"{row['workers']} processes" if "workers" in row else f"a {row['where']}".replace("a c", "one c", 1)
        table.add_row(row["part"], where, f"{row['ms_per_image']:.3f}", f"{row['images_per_s']:,.0f}")
    return table


def _conclude(rows: list[dict[str, Any]]) -> None:
    """Say which of the two waits, and how many cores the training step needs."""
    by_part = {row["part"]: row for row in rows}
    loader, step = by_part["loader"], by_part.get("training step")
    if step is None:
        return
    cores = step["images_per_s"] * loader["ms_per_image"] / 1e3
    waits = "the model waits for images" if loader["images_per_s"] < step["images_per_s"] else "the input keeps up"
    remark(f"{waits}: its step takes {step['images_per_s']:,.0f} images/s, for which the input needs {cores:.1f} cores")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or not all(1 <= int(side) <= 8192 for side in match.groups()):
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT from 1x1 to 8192x8192 pixels, got {text!r}")
    return int(match[1]), int(match[2])
