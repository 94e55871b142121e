"""What all figures share: their style, the empty figure, maps without ticks, color scales, color bars and captions."""

import functools
import textwrap
from collections.abc import Callable
from typing import Any, ParamSpec

from sequencer2d.errors import UserError, how_to_install

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


def color_bar(figure: Any, picture: Any, axes: Any, label: str) -> None:
    """A color bar beside axes."""
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.015)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=SMALL)


def caption(figure: Any, text: str) -> None:
    """The text under a figure, in lines of its width."""
    lines = textwrap.wrap(text, int(figure.get_figwidth() * CHARACTERS))
    figure.supxlabel("\n".join(lines), fontsize=7, x=0.02, ha="left", color="0.25")
