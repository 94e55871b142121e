"""`sequencer2d finetune FOLDER`: a model for your own photos. What can be derived is derived."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sequencer2d import terminal
from sequencer2d.choices import DeviceKind
from sequencer2d.cli.common import (
    add_folder,
    console,
    field_values,
    need,
    new_folder,
    remark,
    resolve_device,
    writable_path,
)
from sequencer2d.cli.outcome import report
from sequencer2d.cli.parsing import check_first
from sequencer2d.environment import launch
from sequencer2d.errors import CheckpointError, ConfigError, counted
from sequencer2d.models.shipped import SHIPPED

if TYPE_CHECKING:
    from sequencer2d.data.own_folder import OwnFolder
    from sequencer2d.recipes.own_photos import Plan, Start
    from sequencer2d.training.config import TrainConfig

EPILOG = """\
examples:
  sequencer2d finetune photos/                            from published weights, which are downloaded once
  sequencer2d finetune photos/ --from runs/flowers        from a run of yours, a file, or hf-hub:owner/name
  sequencer2d finetune photos/ --from sequencer2d_n_p4    from the weights that come with the package, without network
  sequencer2d finetune photos/ --from scratch             from random weights
  sequencer2d finetune photos/ --head-only --minutes 3    the classifier alone: fast, for very few photos
  sequencer2d finetune photos/ --dry-run                  say what would be chosen and why, train nothing

FOLDER holds a folder of images for each class: FOLDER/<class>/*, or FOLDER/train/<class>/* and FOLDER/val/<class>/*.
Without a split to validate on, a fifth of each class is held out. Any field of the configuration can be set by its
path, for example data.image_size=160 (pixels) or run.epochs=20."""

SCRATCH, SMALLEST, PUBLISHED = "scratch", "sequencer2d_n", "sequencer2d_s"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "finetune",
        help="train a model on your own photos",
        description="Train a model on a folder of your own photos. What can be derived from the photos and the machine "
        "is derived and explained.",
        epilog=EPILOG,
    )
    add_folder(parser)
    parser.add_argument("fields", nargs="*", metavar="field=value", help="set a field of the configuration")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="WEIGHTS",
        help=f"first weights: a run's folder, a file, hf-hub:owner/name, {', '.join(SHIPPED)} (which comes with the "
        f"package), or {SCRATCH} for random ones (default: the published weights of {PUBLISHED})",
    )
    parser.add_argument("--head-only", action="store_true", help="train the classifier alone")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=8.0,
        metavar="N",
        help="about how many minutes training should take (default: 8)",
    )
    parser.add_argument(
        "--validate-on-training", action="store_true", help="allow validation images that are training images as well"
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=get_args(DeviceKind),
        help="auto takes CUDA if there is a GPU (default: auto)",
    )
    parser.add_argument("--output", type=writable_path, metavar="FOLDER", help="the run's folder (default: a new one)")
    parser.add_argument("--dry-run", action="store_true", help="print what would be chosen and stop")
    check_first(parser, _check_start)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if launch().world_size > 1:
        raise ConfigError(
            "finetune plans for one process; under torchrun use: sequencer2d train RECIPE, with the fields that "
            "finetune --dry-run prints"
        )
    need("matplotlib", "train", "finetune")
    from sequencer2d.data.own_folder import look_into
    from sequencer2d.training.assemble import check_parts
    from sequencer2d.training.config import validate
    from sequencer2d.training.loop import train

    folder = look_into(arguments.folder)
    if not arguments.validate_on_training and not any(field.startswith("data.") for field in arguments.fields):
        _check_parts(folder)
    device = resolve_device(arguments.device).type
    start = find_start(arguments.start, head_only=arguments.head_only)
    plan = _plan(arguments, folder, start, device)
    _print_plan(plan)
    validate(plan.config)
    check_parts(plan.config)
    if not arguments.validate_on_training:
        _check_held_out(plan.config)
    if arguments.dry_run:
        return 0
    report(plan.config, train(plan.config))
    return 0


def _check_parts(folder: OwnFolder) -> None:
    """Refuse a folder that can't be trained on before anything is measured, and say if it flatters what it trains."""
    from sequencer2d.data.own_folder import copies, parts_of

    train, val = parts_of(folder)
    if found := copies(train, val):
        remark(
            terminal.printable(
                f"images to validate on that are copies of images to train on: {len(found)} of {len(val)}, such as "
                f"{found[0]}. Accuracy will look better than it is: sequencer2d data {shlex.quote(str(folder.path))} "
                "lists them"
            )
        )


def _check_start(arguments: argparse.Namespace) -> None:
    from sequencer2d.models.locate import HUB_PREFIXES, locate

    if arguments.start == SCRATCH and arguments.head_only:
        raise ConfigError(f"--head-only trains on weights that are there already; --from {SCRATCH} has none")
    if arguments.start not in (None, SCRATCH) and not arguments.start.startswith(HUB_PREFIXES):
        locate(arguments.start)


def find_start(weights: str | None, *, head_only: bool) -> Start:
    """The weights that training starts from.

    Raises:
        CheckpointError: the weights do not exist, or the published ones cannot be downloaded.
    """
    from sequencer2d.evaluation.subject import load_checkpoint
    from sequencer2d.models import read_checkpoint
    from sequencer2d.models.describing import stored_overrides
    from sequencer2d.models.variants import HUB_WEIGHTS
    from sequencer2d.recipes.own_photos import Start

    if weights == SCRATCH:
        return Start("scratch", SMALLEST, "random weights: the smallest model")
    source = weights or f"hf-hub:{HUB_WEIGHTS[PUBLISHED]}"
    try:
        subject = load_checkpoint(source)
    except CheckpointError as error:
        if weights is not None:
            raise
        with_package = "".join(f"from the weights that come with the package: --from {name}; " for name in SHIPPED)
        raise CheckpointError(
            f"the published weights of {PUBLISHED} are not here, and {source} cannot be fetched. Without network, "
            f"train {with_package}from random weights: --from {SCRATCH}; or give weights of yours: --from RUN or "
            "--from FILE"
        ) from error
    meta = read_checkpoint(source).meta
    name = str(meta.get("model") or getattr(subject.model, "variant", ""))
    spec = {f"data.{key}": value for key, value in subject.input_fields.items()}
    overrides = {key: value for key, value in stored_overrides(meta).items() if key != "img_size"}
    return Start(
        "head" if head_only else "finetune",
        name,
        f"the weights of {source}",
        {"model.checkpoint": source, **spec, **({"model.overrides": overrides} if overrides else {})},
    )


def _plan(arguments: argparse.Namespace, folder: OwnFolder, start: Start, device: str) -> Plan:
    import torch

    from sequencer2d.data.workers import worker_count
    from sequencer2d.recipes.own_photos import Machine, Photos, plan
    from sequencer2d.training.config import TrainConfig
    from sequencer2d.training.trial import batch_that_fits

    photos = Photos(
        str(folder.path.resolve()), (folder.train_split, folder.val_split), folder.counts, folder.side, folder.pixels
    )
    usable = worker_count(TrainConfig().data)
    cores = usable if device == "cuda" else torch.get_num_threads()
    machine = Machine(device, cores, busy=_load() > 1.5 * usable)
    name = folder.path.resolve().name or "photos"
    output = arguments.output or new_folder(Path("runs"), name)
    fields = field_values(arguments.fields)
    if arguments.output:
        fields["run.output"] = str(output)
    remark("measuring how fast this machine trains …")
    if device == "cpu" and machine.busy:
        remark(
            f"other programs are using this machine (load {_load():.1f} on {counted(usable, 'core')}), so fewer epochs "
            "fit into the time; set run.epochs, or try again later"
        )
    return plan(
        photos, start, machine, batch_that_fits, minutes=arguments.minutes, output=str(output), fields=dict(fields)
    )


def _print_plan(plan: Plan) -> None:
    from rich.text import Text

    table = terminal.plain_table("field", "chosen", "why")
    for row in plan.rows():
        table.add_row(*(Text(terminal.printable(cell)) for cell in row))
    console().print(table)


def _check_held_out(config: TrainConfig) -> None:
    from sequencer2d.data.opening import open_split
    from sequencer2d.data.own_folder import refuse_shared_images

    refuse_shared_images(
        open_split(config.data, config.data.train_split), open_split(config.data, config.data.val_split)
    )


def _load() -> float:
    """Processes ready to run, on average over the last minute; 0 on a system that does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected minutes above 0, got {text!r}")
    return value
