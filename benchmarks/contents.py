"""What a figure holds, as plain data: texts with their sizes, lines, maps, scales, limits that were set.

Unlike its pixels they are the same with every version of matplotlib.
"""

import hashlib
import json
from typing import Any

import numpy as np


def fingerprint(figure: Any) -> str:
    """A hash of everything that was put into a figure."""
    return hashlib.sha256(json.dumps(contents(figure), sort_keys=True).encode()).hexdigest()


def contents(figure: Any) -> dict[str, Any]:
    """Everything that was put into a figure."""
    around = {"caption": figure._supxlabel, "title": figure._suptitle}
    names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return {
        **({"legend": names} if names else {}),
        "inches": figure.get_size_inches().round(3).tolist(),
        **{name: [text.get_text(), text.get_fontsize()] for name, text in around.items() if text is not None},
        "axes": [_axis(axis) for axis in figure.axes],
    }


def _axis(axis: Any) -> dict[str, Any]:
    titles = (axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label)
    log = "log" in (axis.get_xscale(), axis.get_yscale())
    held = {
        "titles": [[text.get_text(), text.get_fontsize(), *_color(text)] for text in titles if text.get_text()],
        "limits": [
            np.round(limits, 4).tolist()
            for limits, automatic in (
                (axis.get_xlim(), axis.get_autoscalex_on()),
                (axis.get_ylim(), axis.get_autoscaley_on()),
            )
            if not automatic
        ],
        "ticks": [[tick.get_text(), tick.get_fontsize(), tick.get_rotation()] for tick in _ticks(axis)],
        "lines": [_line(line) for line in axis.lines],
        "bars": [
            np.round(bars.get_segments(), 4).tolist() for bars in axis.collections if hasattr(bars, "get_segments")
        ],
        "bands": [_band(band) for band in axis.collections if _is_band(band)],
        "frames": [[*patch.get_xy(), patch.get_width(), patch.get_height()] for patch in axis.patches],
        "maps": [_map(image) for image in axis.images],
        "texts": [
            [*np.round(text.get_position(), 4).tolist(), text.get_text(), text.get_color(), *_font(text)]
            for text in axis.texts
        ],
        "legend": _legend(axis) if axis.get_legend() else [],
        "scales": [axis.get_xscale(), axis.get_yscale(), axis.get_yticks().tolist()] if log else [],
        "margins": [] if axis.margins() == (0.05, 0.05) else list(axis.margins()),
        "grid": [line.get_alpha() for line in (*axis.get_xgridlines()[:1], *axis.get_ygridlines()[:1]) if _is_on(line)],
        "shown": axis.axison,
    }
    return {name: value for name, value in held.items() if value not in ([], True)}


def _is_band(collection: Any) -> bool:
    """Whether a collection is a filled area, and no error bars or colors of a color bar."""
    from matplotlib.collections import PolyCollection

    return isinstance(collection, PolyCollection)


def _band(band: Any) -> list[Any]:
    """The corners of a filled area, its color and transparency."""
    (path,) = band.get_paths()
    return [np.round(path.vertices, 3).tolist(), np.round(band.get_facecolor()[0], 3).tolist()]


def _color(text: Any) -> list[str]:
    """The color of a text, where it is not black."""
    return [] if text.get_color() == "black" else [text.get_color()]


def _is_on(line: Any) -> bool:
    return bool(line.get_visible())


def _font(text: Any) -> list[Any]:
    """Size, weight and layer of a text, and the width of its halo."""
    return [
        text.get_fontsize(),
        text.get_fontweight(),
        text.get_zorder(),
        *(e._gc["linewidth"] for e in text.get_path_effects()),
    ]


def _legend(axis: Any) -> list[Any]:
    """The names in a legend, its columns with the space between them, its frame, and its anchor in the axis."""
    legend = axis.get_legend()
    anchor = legend.get_bbox_to_anchor().transformed(axis.transAxes.inverted())
    names = [text.get_text() for text in legend.get_texts()]
    return [
        *names,
        legend._ncols,
        legend.columnspacing,
        legend.get_frame_on(),
        [round(anchor.x0, 3), round(anchor.y0, 3)],
    ]


def _ticks(axis: Any) -> list[Any]:
    """The texts at ticks that were placed by hand."""
    from matplotlib.ticker import FixedLocator

    found = []
    for side in (axis.xaxis, axis.yaxis):
        if isinstance(side.get_major_locator(), FixedLocator):
            found += side.get_ticklabels()
    return found


def _line(line: Any) -> dict[str, Any]:
    data = [np.round(np.asarray(values, dtype=float), 4).tolist() for values in (line.get_xdata(), line.get_ydata())]
    looks = [line.get_color(), line.get_linestyle(), line.get_linewidth(), line.get_marker(), line.get_markersize()]
    edge = [line.get_markeredgecolor(), line.get_markeredgewidth(), line.get_zorder()]
    return {"x": data[0], "y": data[1], "looks": [*looks, line.get_markerfacecolor(), *edge]}


def _map(image: Any) -> dict[str, Any]:
    values = np.asarray(image.get_array(), dtype=float)
    return {
        "values": np.round(values, 3).tolist()
        if values.size <= 20
        else [*values.shape, round(float(values.mean()), 4)],
        "range": [None if limit is None else round(float(limit), 4) for limit in image.get_clim()],
        "colors": image.get_cmap().name,
        "gamma": getattr(image.norm, "gamma", None),
        "alpha": image.get_alpha(),
        "smoothing": image.get_interpolation(),
        "origin": image.origin,
    }
