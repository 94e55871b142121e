"""A picture of images beside those whose features are nearest."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sequencer2d.analysis.figure_files import figure_bytes
from sequencer2d.data.images import BrokenImageError, decode
from sequencer2d.files import atomic_write
from sequencer2d.terminal import printable_lines

ROWS = 24
"""Images that are drawn at most."""
_CHARACTERS = 20


def draw_neighbors(
    found: Sequence[tuple[str, Sequence[tuple[str, float]]]], path: str | os.PathLike[str], *, model: str
) -> Path:
    """Draw a row for each image: itself, then its neighbors with their folder's name and their similarity.

    A neighbor of another folder is red, if the image is in one of the folders that neighbors come from: they are
    classes then. An image from elsewhere bears the name of its file, and no neighbor is red.

    Args:
        found: (image file, [(neighbor's file, similarity -1 to 1), …]); the first `ROWS` are drawn.
        path: PNG file to write.
        model: name of the model, for the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = found[:ROWS]
    columns = 1 + max(len(row) for _, row in shown)
    figure = Figure(figsize=(1.4 * columns, 0.4 + 1.6 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"nearest images by the features of {model} (cosine similarity)", fontsize=9)
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    folders = {Path(neighbor).resolve().parent for _, row in found for neighbor, _ in row}
    for (image, row), cells in zip(shown, grid, strict=True):
        own = Path(image).resolve().parent
        name = _folder(image) if own in folders else _short(Path(image).name)
        _show(cells[0], image, f"{name}\n(searched for)", "black")
        for axes, (neighbor, similarity) in zip(cells[1:], row, strict=False):
            other = own in folders and _folder(neighbor) != _short(own.name)
            _show(axes, neighbor, f"{_folder(neighbor)}\n{similarity:.3f}", "tab:red" if other else "black")
    with atomic_write(path) as file:
        file.write(figure_bytes(figure))
    return Path(path)


def _folder(path: str) -> str:
    return _short(Path(path).resolve().parent.name)


def _short(name: str) -> str:
    return name if len(name) <= _CHARACTERS else f"{name[: _CHARACTERS - 1]}…"


def _show(axes: "object", path: str, title: str, color: str) -> None:
    try:
        image = decode(path)
    except BrokenImageError:  # features of a file can outlive their images
        title += "\n(gone)"
    else:
        image.thumbnail((200, 200))
        axes.imshow(np.asarray(image), interpolation="nearest")  # type: ignore[attr-defined]
    axes.set_title(printable_lines(title), fontsize=7, color=color)  # type: ignore[attr-defined]
