"""`sequencer2d probe CHECKPOINT FOLDER`: how good frozen features are, by k-NN and by a linear classifier."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import (
    add_checkpoint,
    add_device,
    add_download,
    add_folder,
    add_json,
    console,
    need,
    positive,
)
from sequencer2d.cli.embed import add_batch_size, compute, load
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    import numpy as np

    from sequencer2d.data.sources import Source
    from sequencer2d.evaluation.subject import Subject

EPILOG = """\
examples:
  sequencer2d probe runs/photos photos/
  sequencer2d probe hf-hub:timm/sequencer2d_s.in1k photos/ --neighbors 5 --json

FOLDER holds <class>/<images>, or train/ and val/ with those; without a split to validate on, a fifth of each class is
held out, as `sequencer2d finetune` does. k-NN votes by cosine similarity. The linear classifier is logistic regression
on standardized features; a fifth of the training images chooses its regularization. The model is not trained. Accuracy
on images that the model was trained on says little: probe a run on other images than its training images."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = verbs.add_parser(
        "probe",
        help="measure how good frozen features are for a folder of images",
        description="Measure the accuracy (%) of k-NN and of a linear classifier on the frozen features of a model.",
        epilog=EPILOG,
    )
    add_checkpoint(parser, peers=True)
    add_download(parser)
    add_folder(parser)
    parser.add_argument(
        "--neighbors", type=positive, default=10, metavar="K", help="nearest training images that vote (default: 10)"
    )
    add_batch_size(parser)
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    need("sklearn", "train", "probe")
    import numpy as np

    from sequencer2d.data.own_folder import open_parts
    from sequencer2d.evaluation.features import knn_predictions, linear_predictions
    from sequencer2d.evaluation.intervals import accuracy_text, wilson

    train, val = open_parts(arguments.folder)
    subject = load(arguments)
    vectors, targets = _features(subject, train, arguments)
    queries, truths = _features(subject, val, arguments)
    classes = len(train.class_names)
    knn = knn_predictions(vectors, targets, queries, arguments.neighbors, classes)
    linear, strength = linear_predictions(vectors, targets, queries)
    rows = {
        f"{min(arguments.neighbors, len(vectors))}-NN": knn == truths,
        f"linear (C={strength:g})": linear == truths,
        "largest class alone": truths == np.bincount(targets, minlength=classes).argmax(),
    }
    if arguments.json:
        facts: dict[str, Any] = {"model": subject.name, "train": len(vectors), "val": len(queries), "classes": classes}
        facts["accuracy"] = {
            name: {
                "percent": round(100 * float(right.mean()), 2),
                "interval_95": [round(100 * bound, 2) for bound in wilson(int(right.sum()), len(right))],
            }
            for name, right in rows.items()
        }
        terminal.write_json(facts)
        return 0
    table = plain_table("frozen features", "accuracy")
    for name, right in rows.items():
        table.add_row(name, accuracy_text(int(right.sum()), len(right)))
    console().print(table)
    terminal.write(
        f"{subject.name}, {vectors.shape[1]:,} features; {len(vectors):,} training and {len(queries):,} validation "
        f"images of {classes:,} classes"
    )
    return 0


def _features(subject: Subject, source: Source, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """float32 (N, D) features and int64 (N,) classes of the images that can be read."""
    import numpy as np

    paths = [source.describe(index) for index in range(len(source))]
    targets = dict(zip(paths, source.identities()[1].tolist(), strict=True))
    features = compute(subject, paths, arguments)
    return features.vectors, np.array([targets[path] for path in features.paths])
