"""A picture of a data set: a row of images for each class."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sequencer2d.analysis.figure_files import figure_bytes
from sequencer2d.data.images import decode
from sequencer2d.errors import counted
from sequencer2d.files import atomic_write
from sequencer2d.terminal import printable

_LONGEST = 24
"""Characters of a class's name that are shown."""


def draw_samples(
    classes: Mapping[str, Sequence[str]], path: str | os.PathLike[str], *, title: str, rows: int = 12, columns: int = 8
) -> Path:
    """Draw images of each class, evenly spaced in their order.

    Args:
        classes: name of each class → its image files, all of them readable.
        path: PNG file to write.
        title: above the picture.
        rows: classes at most, evenly spaced as well.
        columns: images of a class at most.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in classes if classes[name]]
    names = [names[index] for index in _spaced(len(names), rows)]
    figure = Figure(figsize=(1.4 + columns, 0.5 + len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(printable(title), fontsize=9)
    grid = figure.subplots(len(names), columns + 1, squeeze=False, width_ratios=[1.4, *[1] * columns])
    for axes in grid.flat:
        axes.axis("off")
    for name, (label, *cells) in zip(names, grid, strict=True):
        files = classes[name]
        shown = printable(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")
        label.text(1, 0.5, f"{shown}\n{counted(len(files), 'image')}", ha="right", va="center", fontsize=8)
        for axes, index in zip(cells, _spaced(len(files), columns), strict=False):
            image = decode(files[index])
            image.thumbnail((160, 160))
            axes.imshow(np.asarray(image), interpolation="nearest")
    with atomic_write(path) as file:
        file.write(figure_bytes(figure))
    return Path(path)


def _spaced(count: int, most: int) -> list[int]:
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most))})
