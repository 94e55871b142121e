"""`sequencer2d predict CHECKPOINT IMAGES…`: the classes of images."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_checkpoint,
    add_decoding,
    add_device,
    add_json,
    add_trust,
    amp_dtype,
    console,
    decoding_fields,
    positive,
    progress_bar,
    remark,
    resolve_device,
)
from sequencer2d.errors import ConfigError, DeviceError, InputError
from sequencer2d.terminal import printable

if TYPE_CHECKING:
    import torch

    from sequencer2d.evaluation.predict import Prediction

EPILOG = """\
examples:
  sequencer2d predict runs/cifar10 photo.jpg
  sequencer2d predict hf-hub:timm/sequencer2d_s.in1k photos/ --top 3 --json > predictions.json
  sequencer2d predict model.onnx photo.jpg                 what `sequencer2d export` wrote
  sequencer2d predict model.pt2 photo.jpg --trust          the same, in a format that runs code of its maker

An image that cannot be read is reported and does not stop the others."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "predict",
        help="name what images show",
        description="Print the most probable classes of images, with probabilities, as a table or as JSON.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_checkpoint(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--top", type=positive, default=5, metavar="N", help="classes per image (default: 5)")
    parser.add_argument(
        "--image-size",
        type=positive,
        metavar="PIXELS",
        help="side of the square input (default: what the checkpoint was trained for)",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images per forward pass (default: 32)"
    )
    add_decoding(parser)
    add_device(parser)
    add_trust(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.config import DataConfig
    from sequencer2d.data.finding import find_images
    from sequencer2d.evaluation.predict import class_names_of, input_fields, predict

    paths = find_images(arguments.images)
    model, device = _load(arguments)
    chosen = decoding_fields(arguments)
    if arguments.image_size:
        chosen["image_size"] = arguments.image_size
    found = predict(
        model,
        paths,
        DataConfig(**(input_fields(model) | chosen)),
        class_names=class_names_of(model),
        device=device,
        amp_dtype=amp_dtype(arguments.precision),
        top_k=arguments.top,
        batch_size=arguments.batch_size,
    )
    with progress_bar("images") as bar:
        predictions = list(bar.track(found, total=len(paths), description="predict"))
    if arguments.json:
        terminal.write_json([_plain(prediction) for prediction in predictions])
    else:
        _print_table(predictions)
    return _report_broken(predictions)


def _load(arguments: argparse.Namespace) -> tuple[Any, torch.device]:
    """The checkpoint's model, or an exported artefact, and where it runs."""
    from sequencer2d.export import is_artifact, load_artifact
    from sequencer2d.models import load_model

    if not is_artifact(arguments.checkpoint):
        return load_model(arguments.checkpoint, name=arguments.model), resolve_device(arguments.device)
    if arguments.device not in ("auto", "cpu"):
        raise DeviceError(f"--device {arguments.device}: an exported artefact runs on the CPU; leave --device out")
    if arguments.precision != "fp32":
        raise ConfigError(f"--precision {arguments.precision}: an artefact computes in what it was exported in")
    return load_artifact(arguments.checkpoint, trust=arguments.trust), resolve_device("cpu")


def _plain(prediction: Prediction) -> dict[str, object]:
    fields = dataclasses.asdict(prediction)
    return {key: value for key, value in fields.items() if value or key == "path"}


def _print_table(predictions: list[Prediction]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability", box=None, pad_edge=False, header_style="bold")
    for prediction in predictions:
        name = printable(prediction.path)
        for guess in prediction.guesses:
            table.add_row(Text(name), Text(printable(guess.name)), f"{guess.probability:7.2%}")
            name = ""
    if table.row_count:
        console().print(table)


def _report_broken(predictions: list[Prediction]) -> int:
    broken = [prediction for prediction in predictions if prediction.error]
    if len(broken) == len(predictions):
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise InputError(f"no image could be read; {broken[0].path}: {broken[0].error}{more}")
    for prediction in broken:
        remark(printable(f"skipped {prediction.path}: {prediction.error}"))
    return 0
