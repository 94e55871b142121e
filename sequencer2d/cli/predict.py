"""`sequencer2d predict [CHECKPOINT] IMAGES…`: the classes of images."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_checkpoint,
    add_decoding,
    add_device,
    add_json,
    add_trust,
    check_images,
    console,
    decoding_fields,
    positive,
    progress_bar,
    remark,
    resolve_device,
    share,
    writable_path,
)
from sequencer2d.cli.parsing import check_first
from sequencer2d.cli.verbs import EVERY_TASK, TaskVerb
from sequencer2d.cli.writing import writing
from sequencer2d.errors import ConfigError, DeviceError, InputError
from sequencer2d.precisions import autocast_dtype
from sequencer2d.terminal import plain_table, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    import torch

    from sequencer2d.data.config import DataConfig
    from sequencer2d.evaluation.predict import Prediction
    from sequencer2d.evaluation.subject import Subject

    Write = Callable[[Prediction], None]

EPILOG = """\
examples:
  sequencer2d predict runs/cifar10 photo.jpg
  sequencer2d predict hf-hub:timm/sequencer2d_s.in1k photos/ --top 3 --json > predictions.json
  sequencer2d predict runs/cifar10 photos/ --top 1 --csv predictions.csv
  sequencer2d predict runs/cifar10 photos/ --pictures out/  the images with what was found in them
  sequencer2d predict model.onnx photo.jpg                 what `sequencer2d export` wrote
  sequencer2d predict model.pt2 photo.jpg --trust          the same, in a format that runs code of its maker

An image that cannot be read is reported and does not stop the others."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser], row: TaskVerb = EVERY_TASK) -> None:
    parser = verbs.add_parser(
        "predict",
        **row.describe(
            "predict",
            "name what images show",
            "Print the most probable classes of images, with probabilities, as a table or as JSON.",
            EPILOG,
        ),
    )
    if row is EVERY_TASK:
        check_first(parser, choose_model)
    add_checkpoint(parser, optional=row is EVERY_TASK)
    parser.add_argument(
        "images", nargs="*" if row is EVERY_TASK else "+", metavar="IMAGE", help="image files, or folders of them"
    )
    parser.add_argument(
        "--top",
        type=positive,
        metavar="N",
        help="classes or objects per image, at most (default: the task's; 5 for classification)",
    )
    parser.add_argument(
        "--threshold",
        type=share,
        metavar="SHARE",
        help="least probability, share of the image or score, 0 to 1 (default: the task's; 0 for classification)",
    )
    parser.add_argument(
        "--image-size",
        type=positive,
        metavar="PIXELS",
        help="side of the square input (default: what the checkpoint was trained for)",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images per forward pass (default: 32)"
    )
    parser.add_argument(
        "--pictures", type=writable_path, metavar="FOLDER", help="draw what was found in each image, as PNG files there"
    )
    row.add_options(parser)
    for output in row.outputs:
        parser.add_argument(f"--{output.writer}", type=writable_path, metavar=output.metavar, help=output.help)
    add_decoding(parser)
    add_device(parser)
    add_trust(parser)
    add_json(parser)
    check_first(parser, check_images)
    parser.set_defaults(run=run, row=row)


def choose_model(arguments: argparse.Namespace) -> None:
    """Name the model that comes with the package if the command line begins with images.

    Raises:
        ConfigError: a checkpoint without images.
        DataError: a URL in place of a file.
        CheckpointError: images without a checkpoint, while no model comes with the package.
    """
    from sequencer2d.data.finding import refuse_url, why_no_image
    from sequencer2d.models.locate import is_checkpoint_folder
    from sequencer2d.models.shipped import default_model

    if arguments.checkpoint is None:
        raise ConfigError("name an image, or a folder of images: sequencer2d predict photo.jpg")
    for text in (arguments.checkpoint, *arguments.images):
        refuse_url(text)
    first, path = arguments.checkpoint, Path(arguments.checkpoint)
    is_image = why_no_image(path.name) is None
    if not arguments.images and not is_image and (not path.is_dir() or is_checkpoint_folder(path)):
        raise ConfigError(f"name images as well: sequencer2d predict {first} photo.jpg")
    if is_image or not arguments.images:
        arguments.checkpoint, arguments.images = default_model(), [first, *arguments.images]


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.finding import find_images
    from sequencer2d.evaluation.predict import predict

    paths = find_images(arguments.images)
    subject, device = _load(arguments)
    arguments.row.check(subject.task.name, arguments.checkpoint)
    chosen = decoding_fields(arguments) | ({"image_size": arguments.image_size} if arguments.image_size else {})
    config = dataclasses.replace(subject.data, **chosen)
    predictions = predict(
        subject.model,
        paths,
        config,
        arguments.row.with_options(subject.task, arguments),
        class_names=class_names(subject),
        device=device,
        amp_dtype=autocast_dtype(arguments.precision),
        top_k=arguments.top,
        threshold=arguments.threshold,
        batch_size=arguments.batch_size,
    )
    done = []
    with progress_bar("images") as bar, contextlib.ExitStack() as opened:
        outputs = _outputs(arguments, subject, config, len(paths))
        writers = [opened.enter_context(_writing(path, block)) for path, block in outputs]
        for prediction in bar.track(predictions, total=len(paths), description="predict"):
            for write in writers:
                write(prediction)
            done.append(prediction)
    if arguments.json:
        terminal.write_json([prediction.to_dict() for prediction in done])
    else:
        _print_table(done, subject.task.columns)
    return _report_broken(done)


def _outputs(
    arguments: argparse.Namespace, subject: Subject, config: DataConfig, count: int
) -> Iterator[tuple[Path, AbstractContextManager[Write]]]:
    """The folder or file of each output that was asked for, and what writes predictions there."""
    if arguments.pictures:
        yield arguments.pictures, _pictures(arguments.pictures, config, count)
    names = class_names(subject)
    for output in arguments.row.outputs:
        path = getattr(arguments, output.writer)
        if path is not None:
            if output.writer not in subject.task.writers:
                raise ConfigError(
                    f"--{output.writer} is for classifiers, and this model is for task={subject.task.name}"
                )
            yield path, _findings(subject.task.writers[output.writer](path, names))


@contextlib.contextmanager
def _writing(path: Path, block: AbstractContextManager[Write]) -> Iterator[Write]:
    """A block's function, with an `InputError` that names `path` where that cannot be written to."""
    with writing(path), block as write:

        def write_or_tell(prediction: Prediction) -> None:
            with writing(path):
                write(prediction)

        yield write_or_tell


@contextlib.contextmanager
def _pictures(folder: Path, config: DataConfig, count: int) -> Iterator[Write]:
    """Make the folder, and draw what was found in each of `count` images as a PNG file there."""
    from sequencer2d.evaluation.predict import picture_of

    folder.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count()

    def draw(prediction: Prediction) -> None:
        number = next(numbers)
        if prediction.found is not None:
            name = f"{number:0{len(str(count))}d}-{Path(prediction.path).stem}.png"
            picture_of(prediction, config).save(folder / name)

    yield draw


@contextlib.contextmanager
def _findings(block: AbstractContextManager[Callable[[str, Any], None]]) -> Iterator[Write]:
    """A task's writer, for the images that could be read."""
    with block as add:
        yield lambda prediction: None if prediction.found is None else add(prediction.path, prediction.found)


def class_names(subject: Subject) -> tuple[str, ...]:
    """The names of the model's outputs."""
    from sequencer2d.evaluation.predict import class_names_of

    return class_names_of(subject.model)


def _load(arguments: argparse.Namespace) -> tuple[Subject, torch.device]:
    """The checkpoint's model, or an exported artifact, and where it runs."""
    from sequencer2d import tasks
    from sequencer2d.evaluation.subject import load_checkpoint, subject_of
    from sequencer2d.export import is_artifact, load_artifact

    if not is_artifact(arguments.checkpoint):
        return load_checkpoint(arguments.checkpoint, variant=arguments.model), resolve_device(arguments.device)
    if arguments.device not in ("auto", "cpu"):
        raise DeviceError(f"--device {arguments.device}: an exported artifact runs on the CPU; leave --device out")
    if arguments.precision != "fp32":
        raise ConfigError(f"--precision {arguments.precision}: an artifact computes in what it was exported in")
    artifact = load_artifact(arguments.checkpoint, trust=arguments.trust)
    return subject_of(artifact, name=artifact.path.name, task=tasks.get(artifact.task)), resolve_device("cpu")


def _print_table(predictions: list[Prediction], columns: Sequence[str]) -> None:
    from rich.text import Text

    table = plain_table("image", *columns)
    for prediction in predictions:
        name = printable(prediction.path)
        for row in prediction.found.rows() if prediction.found else ():
            table.add_row(Text(name), *(Text(printable(cell)) for cell in row))
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
