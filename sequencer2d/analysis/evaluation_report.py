"""An evaluation of a classifier as files: which classes are taken for which, how each class fares, what went wrong."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.analysis.figure_files import save_figure
from sequencer2d.analysis.predictions import draw_predictions
from sequencer2d.evaluation.mistakes import Judged, mistakes
from sequencer2d.files import atomic_write
from sequencer2d.tasks.accuracy import ClassificationResult
from sequencer2d.terminal import printable

MOST_CLASSES = 60
"""Classes of a drawn confusion matrix, at most: beyond it no name can be read."""
MOST_NUMBERS = 20
"""Classes up to which each cell states its number of images."""
SHOWN = 24
"""Mistakes in the picture, at most."""


def write_confusion(result: ClassificationResult, folder: Path, title: str) -> list[Path]:
    """Write `confusion.csv`, `classes.csv` and, for up to 60 classes, `confusion.png` into `folder`.

    `confusion.csv` has a line for each pair of a class and a prediction that occurs, the most frequent first.
    `classes.csv` has for each class its images, how many are right, its accuracy (%), how often it was predicted, and
    how often that was right (%).
    """
    names = result.class_names
    pairs = sorted(result.pairs, key=lambda pair: -pair[2])
    rows = [{"truth": names[t], "predicted": names[p], "images": count} for t, p, count in pairs]
    files = [_write_csv(folder / "confusion.csv", rows, ("truth", "predicted", "images"))]
    files.append(_write_csv(folder / "classes.csv", class_table(result), tuple(class_table(result)[0])))
    if len(names) <= MOST_CLASSES:
        files += save_figure(confusion_figure(result, title), folder / "confusion.png", ("png",))
    return files


def class_table(result: ClassificationResult) -> list[dict[str, Any]]:
    """A row for each class; shares are percentages, empty where there is nothing to divide by."""
    images, predicted, right = Counter[int](), Counter[int](), Counter[int]()
    for truth, guess, count in result.pairs:
        images[truth] += count
        predicted[guess] += count
        right[truth] += count if truth == guess else 0
    return [
        {
            "class": name,
            "images": images[k],
            "right": right[k],
            "accuracy_percent": _percent(right[k], images[k]),
            "predicted": predicted[k],
            "precision_percent": _percent(right[k], predicted[k]),
        }
        for k, name in enumerate(result.class_names)
    ]


def confusion_figure(result: ClassificationResult, title: str) -> Any:
    """The confusion matrix: a row for each class, colored by the share of its images that each prediction has."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(result.class_names)
    images = np.zeros((count, count), dtype=np.int64)
    for truth, guess, number in result.pairs:
        images[truth, guess] = number
    shares = images / np.maximum(images.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.28 * count + 2)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = [printable(name)[:24] for name in result.class_names]
    axes.set_xticks(range(count), names, rotation=90, fontsize="small", parse_math=False)
    axes.set_yticks(range(count), names, fontsize="small", parse_math=False)
    axes.set(xlabel="predicted", ylabel="truth")
    axes.set_title(printable(title), fontsize="medium", parse_math=False)
    figure.colorbar(drawn, ax=axes, label="share of the images of a class", shrink=0.7)
    if count <= MOST_NUMBERS:
        for truth, guess, number in result.pairs:
            dark = shares[truth, guess] > 0.6
            axes.text(guess, truth, str(number), ha="center", va="center", color="w" if dark else "k", fontsize="small")
    return figure


def write_mistakes(judged: Sequence[Judged], folder: Path, title: str) -> list[Path]:
    """Write `mistakes.csv` with all wrong ones and `mistakes.png` with the first 24; the most confident come first.

    Args:
        judged: all images, right and wrong.
        folder: where to write.
        title: model and data, for the picture.
    """
    wrong = mistakes(judged)
    files = [
        _write_csv(
            folder / "mistakes.csv", [one.to_dict() for one in wrong], ("path", "truth", "predicted", "probability")
        )
    ]
    if first := wrong[:SHOWN]:
        predictions, truths = [one.prediction for one in first], [one.truth for one in first]
        shown = f", the {len(first)} most confident" if len(first) < len(wrong) else ", the most confident first"
        head = f"{title}\n{len(wrong)} of {len(judged)} images are wrong{shown}"
        columns = min(6, len(first))
        files.append(draw_predictions(predictions, truths, folder / "mistakes.png", columns=columns, title=head))
    return files


def _write_csv(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Path:
    with atomic_write(path, "w") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({name: printable(value) for name, value in row.items()} for row in rows)
    return path


def _percent(part: int, whole: int) -> float | str:
    return round(100 * part / whole, 2) if whole else ""
