"""What the features of the shipped weights know of other data sets: a linear classifier and nearest neighbors on them.

    python -m benchmarks.tiny_imagenet.frozen --data /data

`--data` holds flowers102-64px/ (train/, val/ and test/) and cifar10-jpeg/ (train/ and test/), each with <class>/*. The
model stays as it is, at the image size that its file states; the same model with random weights shows what the
architecture does by itself. Images are the same random sample of each class for both. Runs in minutes on a CPU and
writes `benchmarks/results/tiny-imagenet-frozen.json`.
"""

import argparse
import random
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.record import RESULTS, command_line, origin, write_result
from sequencer2d.evaluation.features import embed, knn_predictions, linear_predictions
from sequencer2d.evaluation.subject import Subject, load_subject
from sequencer2d.models import create_model
from sequencer2d.models.shipped import default_model

NAME, SCRIPT = "tiny-imagenet-frozen", "benchmarks.tiny_imagenet.frozen"
NEIGHBORS = 20


class Images(NamedTuple):
    """A data set: its folder, the splits for training, and how many images of each class train and test at most."""

    folder: str
    train: tuple[str, ...]
    per_class: tuple[int, int]


DATA_SETS = {
    "flowers102": Images("flowers102-64px", ("train", "val"), (20, 20)),
    "cifar10": Images("cifar10-jpeg", ("train",), (200, 200)),
}


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    rows = []
    for name in options.sets:
        data = DATA_SETS[name]
        parts = [
            sample(options.data / data.folder, splits, min(most, options.per_class or most))
            for splits, most in ((data.train, data.per_class[0]), (("test",), data.per_class[1]))
        ]
        for weights in ("shipped", "random"):
            rows.append({"data": name, "weights": weights, **measure(subject(weights), *parts)})
            print(rows[-1], flush=True)
            write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": rows}, options.result)
    return 0


def sample(folder: Path, splits: tuple[str, ...], most: int) -> dict[Path, str]:
    """Class of each of at most `most` images a class, drawn with a fixed seed from some splits."""
    draws, found = random.Random(0), {}
    for name in sorted({path.name for split in splits for path in (folder / split).iterdir()}):
        files = sorted(file for split in splits for file in (folder / split / name).iterdir())
        found.update(dict.fromkeys(sorted(draws.sample(files, min(most, len(files)))), name))
    return found


def subject(weights: str) -> Subject:
    """The shipped model, as it is or with the first weights of training."""
    found = load_subject(default_model())
    if weights == "random":
        torch.manual_seed(0)
        found.model.load_state_dict(create_model(default_model(), num_classes=found.model.num_classes).state_dict())
    return found


def measure(of: Subject, train: dict[Path, str], test: dict[Path, str]) -> dict[str, Any]:
    """Top-1 (%) on the test images of both classifiers, from frozen features."""
    started = time.monotonic()
    classes = sorted(set(train.values()))
    x, y = _features(of, train), np.array([classes.index(name) for name in train.values()])
    queries, truth = _features(of, test), np.array([classes.index(name) for name in test.values()])
    linear, strength = linear_predictions(x, y, queries)
    nearest = knn_predictions(x, y, queries, NEIGHBORS, len(classes))
    return {
        "classes": len(classes),
        "train_images": len(y),
        "test_images": len(truth),
        "image_size": of.data.size[0],
        "linear_percent": round(100 * float((linear == truth).mean()), 2),
        "linear_strength": strength,
        "knn_percent": round(100 * float((nearest == truth).mean()), 2),
        "seconds": round(time.monotonic() - started, 1),
    }


def _features(of: Subject, images: dict[Path, str]) -> np.ndarray:
    vectors = []
    for path, vector, problem in embed(of, [str(image) for image in images], batch_size=64):
        if vector is None:
            raise SystemExit(f"{path} cannot be read: {problem}")
        vectors.append(vector)
    return np.stack(vectors)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="of the data sets' folders")
    parser.add_argument("--sets", nargs="+", choices=list(DATA_SETS), default=list(DATA_SETS))
    parser.add_argument("--per-class", type=int, metavar="N", help="fewer images of each class, for a trial")
    parser.add_argument("--result", type=Path, default=RESULTS / f"{NAME}.json", metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
