"""What a figure holds, as plain data: texts with their sizes, lines, maps, scales, limits that were set.

    python -m tests.analysis.drawn     # writes drawn.json anew

`drawn.json` holds the contents of one figure of each kind, from numbers made up for it. Any change of a figure shows
there: look at the difference before it is committed.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.charts import attack_chart, calibration_chart, corruption_chart, resolution_chart
from sequencer2d.analysis.cka import Similarity
from sequencer2d.analysis.erf import ReceptiveField
from sequencer2d.analysis.erf_methods import METHODS
from sequencer2d.analysis.figures import (
    attribution_figure,
    hidden_state_figure,
    memory_figure,
    receptive_field_grid,
    similarity_figure,
)
from sequencer2d.analysis.hidden_states import HiddenStates
from sequencer2d.analysis.layout import Layout
from sequencer2d.analysis.memory import BINS, MemoryReach, Reach
from sequencer2d.analysis.paper_figures import Point, accuracy_figure, resolution_figure
from sequencer2d.benchmark.published import Published
from sequencer2d.evaluation.attacks import AttackResult
from sequencer2d.evaluation.mce import CorruptionResult
from sequencer2d.evaluation.resolution import ResolutionResult

RECORD = Path(__file__).with_suffix(".json")


def contents(figure: Any) -> dict[str, Any]:
    """Everything that was put into a figure."""
    caption = figure._supxlabel
    return {
        "inches": figure.get_size_inches().round(3).tolist(),
        "caption": [caption.get_text(), caption.get_fontsize()],
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


def receptive_fields() -> Any:
    y, x = np.mgrid[:12, :12] - 6
    maps = [np.where((x == 0) | (y == 0), 4.0, 0.25), np.exp(-(x**2 + y**2) / 9.0), np.full((12, 12), 1.0)]
    layout = Layout("NHWC", 6, 6, 0)
    fields = [
        ReceptiveField(f"m{i // 2}", f"b{i}", METHODS["energy"], m, (6, 6, 8, 8), layout, 5) for i, m in enumerate(maps)
    ]
    return receptive_field_grid([fields[:2], fields[2:]])


def states() -> HiddenStates:
    """A vertical LSTM and a horizontal one, of two units each, on two rows and three columns of tokens."""
    maps = np.arange(4 * 2 * 3 * 2, dtype=np.float32).reshape(4, 2, 3, 2) / 24 - 1
    image = np.full((8, 12, 3), 100, dtype=np.uint8)
    return HiddenStates("m", "b", image, maps, maps[0] * 2, (0, 1, 2, 3))


def reach() -> MemoryReach:
    """Two blocks, of four scans each; half-lives double with the scan."""
    histogram = np.zeros(BINS)
    histogram[30:40] = 0.1
    scans = [
        Reach(
            f"stages.{block}.blocks.0",
            scan,
            4.0 * (block + 1),
            histogram,
            2.0**scan * np.arange(1, 6),
            8 // (block + 1),
        )
        for block in range(2)
        for scan in range(4)
    ]
    return MemoryReach("m", tuple(scans), 7)


def similarities() -> Any:
    names = tuple(f"stages.0.blocks.{number}" for number in range(25))
    values = np.linspace(0, 1, 50).reshape(2, 25)
    return similarity_figure([Similarity(("m", "n"), (("stages.0.blocks.0", "stem"), names), values, 64)])


def attributions() -> Any:
    maps = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2)
    pixels = np.zeros((2, 2, 2, 3), dtype=np.uint8)
    classes, probabilities = np.asarray([0, 1]), np.asarray([0.996, 0.25])
    result = Attribution("m", "b", maps, pixels, classes, probabilities, classes, probabilities, np.asarray([0, 0]))
    return attribution_figure(result, ["n01440764", "dog"])


def attributions_of_a_class() -> Any:
    """Maps that speak for a class that is not predicted, of an image without a label."""
    maps, pixels = np.zeros((1, 2, 2), dtype=np.float32), np.zeros((1, 2, 2, 3), dtype=np.uint8)
    result = Attribution("m", "b", maps, pixels, *(np.asarray([value]) for value in (1, 0.1, 0, 0.9)))
    return attribution_figure(result, ["cat", "dog"])


def resolutions() -> Any:
    sizes = np.asarray([16, 32, 64])
    results = [
        ResolutionResult(name, 32, sizes, np.asarray([0.25, 0.5, 0.4]) / n, 9) for n, name in ((1, "m"), (2, "n"))
    ]
    return resolution_chart(results)


def corruptions(clean: float = 0.125) -> list[CorruptionResult]:
    """One model under two corruptions at three severities."""
    error = np.asarray([[0.2, 0.54, 0.9], [0.1, 0.555, 0.7]])
    return [
        CorruptionResult(
            "m", ("fog", "jpeg_compression"), (1, 3, 5), error, error / 2, error / 4, clean, 0.75, 0.05, 11
        )
    ]


def attacks() -> Any:
    epsilons, accuracy = np.asarray([1, 4]) / 255, np.asarray([0.5, 0.125])
    options = ((("fgsm", 1, epsilons, False)), ("pgd", 5, epsilons / 2, True))
    return attack_chart(
        [AttackResult("m", n, epsilons, accuracy, 0.75, steps, sizes, r, 13) for n, steps, sizes, r in options]
    )


def figure_1() -> Any:
    """Two Sequencers, one model of each other family, and two that were measured, one of them of an unknown family."""
    families = ("Trans.", "CNN", "GMLP", "LMLP", "FFT")
    points = [Point(family, 40, 60 + 4 * n, family, family, "paper") for n, family in enumerate(families)]
    points += [Point("L", 50, 90, "Seq.", "Sequencer2D", "paper"), Point("S", 10, 88, "Seq.", "Sequencer2D", "paper")]
    points += [Point("mine", 20, 64, "Seq.", "", "measured"), Point("other", 20, 70, "?", "", "measured")]
    return accuracy_figure(points)


def figure_3(*, accuracy: bool = True) -> Any:
    """Memory and rates of two models, one of which the paper published; with accuracies or without."""
    result = ResolutionResult("m", 32, np.asarray([16, 32]), np.asarray([0.25, 0.5]), 9)
    published = {"m": [Published("M", "M", "m", "Seq.", 32, 1, 1, (3, 900), (50, 60), 80)]}
    return resolution_figure(
        [result] if accuracy else [],
        {"m": [(32, 10), (64, 40)]} if accuracy else {},
        {"m": [(32, 2000), (64, 100)], "n": [(32, 1000)]},
        about="a GPU",
        batch=16,
        published=published if accuracy else None,
    )


FIGURES: dict[str, Callable[[], Any]] = {
    "receptive fields": receptive_fields,
    "hidden states": lambda: hidden_state_figure(states(), count=3),
    "chosen hidden states": lambda: hidden_state_figure(states(), channels=[1]),
    "memory": lambda: memory_figure(reach()),
    "similarity": similarities,
    "attribution": attributions,
    "attribution of a class": attributions_of_a_class,
    "resolution": resolutions,
    "corruptions": lambda: corruption_chart(corruptions()),
    "corruptions without clean": lambda: corruption_chart(corruptions(float("nan"))),
    "calibration": lambda: calibration_chart(corruptions()),
    "attacks": attacks,
    "figure 1": figure_1,
    "figure 3": figure_3,
    "figure 3 without accuracy": lambda: figure_3(accuracy=False),
}

if __name__ == "__main__":
    record = {name: contents(draw()) for name, draw in FIGURES.items()}
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
