"""What all figures share: their style, the empty figure, maps without ticks, color scales, color bars and captions."""

import functools
import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

from sequencer2d.errors import UserError, how_to_install
from sequencer2d.evaluation.intervals import wilson

Parameters = ParamSpec("Parameters")

CELL = 1.75
"""Inches of a small map."""
STATE_COLORS = "RdBu_r"
STYLE = {
    "axes.labelsize": 8,
    "axes.titlesize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
}
"""Sizes in points of what is drawn at once; ticks are drawn later and get theirs by `label_axes`."""
TICKS, SMALL = 7, 6
"""Points of the text at ticks, and of text in a map or beside a color bar."""
CHARACTERS = 17
"""Characters of a caption in an inch."""
BANDS = "Bands: 95 % confidence for so many images"
"""What `share_line` draws, for captions."""
RIGHT, WRONG = "#1a7f37", "#c1121f"
"""Colors of right and wrong predictions; the text beside them says it, too."""


def figure_function(draw: Callable[Parameters, Any]) -> Callable[Parameters, Any]:
    """A function that draws a figure, in the style of all figures.

    Raises:
        UserError: matplotlib is not installed.
    """

    @functools.wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Any:
        try:
            import matplotlib as mpl
        except ImportError as error:
            raise UserError(f"figures need matplotlib: {how_to_install('analysis')}") from error
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def new_figure(width: float, height: float) -> Any:
    """An empty figure; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def power_scale(gamma: float, largest: float | None = 1.0) -> Any:
    """A color scale from 0 to `largest` (none: the largest value).

    With `gamma` < 1 weak values show beside strong ones.
    """
    from matplotlib.colors import PowerNorm

    return PowerNorm(gamma, vmin=0, vmax=largest)


def show_map(axis: Any, values: Any, **options: Any) -> Any:
    """A map or an image in an axis without ticks, a square for each value."""
    axis.set_xticks([])
    axis.set_yticks([])
    # Smoothed, small images make files of several times the size.
    return axis.imshow(values, interpolation="nearest", **options)


def label_axes(axis: Any, x: str, y: str) -> None:
    """Name both axes, and set the size of the text at their ticks."""
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.tick_params(labelsize=TICKS)


def share_line(axis: Any, x: Any, shares: Any, count: int, *, whole: float = 1.0, **looks: Any) -> None:
    """A line of shares in percent, with a band that holds each share with 95 % confidence (Wilson's interval).

    Args:
        axis: where to draw.
        x: (K,) positions.
        shares: (K,) shares of `count` images, 0 to 1.
        count: images.
        whole: the share that is 100 %.
        looks: of the line.
    """
    values = np.asarray(shares, dtype=float)
    (line,) = axis.plot(x, 100 * values / whole, **looks)
    low, high = 100 * np.transpose([wilson(share * count, count) for share in values]) / whole
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)


def prediction_text(guess: str, probability: float, truth: str | None, width: int) -> str:
    """What stands above a photo: the predicted class with its probability, then the truth where it is known.

    Args:
        guess: name of the predicted class.
        probability: of it, 0 to 1.
        truth: name of the class that is right; None if nobody knows.
        width: characters of a line.
    """
    mark = "" if truth is None else "✓ " if truth == guess else "✗ "
    lines = _two_lines(f"{mark}{guess}", f" ({probability:.0%})", width)
    return "\n".join([*lines, *([] if truth is None else _two_lines(f"truth: {truth}", "", width))])


def _two_lines(text: str, end: str, width: int) -> list[str]:
    """Text and what ends it, in at most two lines; a text that is too long is cut, never its end."""
    lines = textwrap.wrap(text + end, width)
    if len(lines) <= 2:
        return lines
    first, *rest = textwrap.wrap(text, width)
    room = width - len(end) - 1
    return [first, textwrap.wrap(" ".join(rest), room)[0] + "…" + end]


def prediction_color(guess: str, truth: str | None) -> str:
    """The color of that text."""
    return "black" if truth is None else RIGHT if truth == guess else WRONG


def color_bar(figure: Any, picture: Any, axes: Any, label: str) -> None:
    """A color bar beside axes."""
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.015)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=SMALL)


def caption(figure: Any, text: str) -> None:
    """The text under a figure, in lines of its width."""
    lines = textwrap.wrap(text, int(figure.get_figwidth() * CHARACTERS))
    figure.supxlabel("\n".join(lines), fontsize=7, x=0.02, ha="left", color="0.25")
