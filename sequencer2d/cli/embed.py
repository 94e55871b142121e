"""`sequencer2d embed CHECKPOINT IMAGES…`: the features of images, as a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_checkpoint,
    add_device,
    add_download,
    check_images,
    positive,
    progress_bar,
    remark,
    resolve_device,
    writable_path,
)
from sequencer2d.cli.parsing import check_first
from sequencer2d.cli.writing import writing
from sequencer2d.errors import ConfigError, InputError, counted
from sequencer2d.precisions import autocast_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sequencer2d.evaluation.features import Features
    from sequencer2d.evaluation.subject import Subject

EPILOG = """\
examples:
  sequencer2d embed runs/photos photos/ --output photos.npz
  sequencer2d embed hf-hub:timm/sequencer2d_s.in1k photos/ --output photos.npz --batch-size 64

FILE is read by numpy.load: `vectors` float32 (images, features), `paths` of the images, `model`, and
`weights`, a hash of them. Features are what the
classifier takes: the average over the last feature map. An image that cannot be read is reported and left out."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "embed",
        help="write the features of images to a file",
        description="Write the features of images, the input of the model's classifier, to a NumPy file.",
        epilog=EPILOG,
    )
    add_checkpoint(parser, peers=True)
    add_download(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--output", type=npz_path, required=True, metavar="FILE", help="file to write: .npz")
    add_batch_size(parser)
    add_device(parser)
    check_first(parser, check_images)
    parser.set_defaults(run=run)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Add `--batch-size`."""
    parser.add_argument(
        "--batch-size", type=positive, default=32, metavar="N", help="images per forward pass (default: 32)"
    )


def npz_path(text: str) -> Path:
    """An argument that is a path to an .npz file to write."""
    path = writable_path(text)
    if path.suffix != ".npz":
        raise argparse.ArgumentTypeError(f"expected a file that ends in .npz, got {text!r}")
    return path


def run(arguments: argparse.Namespace) -> int:
    from sequencer2d.data.finding import find_images

    paths = [str(path) for path in find_images(arguments.images)]
    features = compute(load(arguments), paths, arguments)
    with writing(arguments.output):
        features.save(arguments.output)
    count, width = features.vectors.shape
    terminal.write(f"{arguments.output}: {counted(width, 'feature')} of each of {counted(count, 'image')}")
    return 0


def load(arguments: argparse.Namespace) -> Subject:
    """The model that the command line names. Raises `ConfigError` if it is not a classifier."""
    from sequencer2d.evaluation.subject import load_subject
    from sequencer2d.export import is_artifact

    if is_artifact(arguments.checkpoint):
        raise ConfigError(f"{arguments.checkpoint} is an exported file, which holds no features; give its checkpoint")
    subject = load_subject(arguments.checkpoint, variant=arguments.model, download=arguments.download)
    if subject.task.name != "classification":
        raise ConfigError(f"{arguments.checkpoint} is for task={subject.task.name}; features are those of classifiers")
    return subject


def compute(subject: Subject, paths: Sequence[str], arguments: argparse.Namespace) -> Features:
    """The features of the images that can be read; the others are reported.

    Raises:
        InputError: no image can be read.
    """
    import numpy as np

    from sequencer2d.evaluation.features import Features, digest_of, embed

    vectors, kept = [], []
    found = embed(
        subject,
        paths,
        device=resolve_device(arguments.device),
        amp_dtype=autocast_dtype(arguments.precision),
        batch_size=arguments.batch_size,
    )
    with progress_bar("images") as bar:
        for path, vector, error in bar.track(found, total=len(paths), description="embed"):
            if vector is None:
                remark(f"skipped {path}: {error}")
            else:
                vectors.append(vector)
                kept.append(path)
    if not kept:
        raise InputError(f"no image could be read; the first one is {paths[0]}")
    return Features(np.stack(vectors), tuple(kept), subject.name, digest_of(subject.model))
