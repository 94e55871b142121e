"""Figures of the arrays, as a paper would print them.

Each has titles, units and one color scale, and is readable without the text beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sequencer2d.analysis.attribution import Attribution
from sequencer2d.analysis.cka import Similarity
from sequencer2d.analysis.drawing import (
    CELL,
    SMALL,
    STATE_COLORS,
    caption,
    color_bar,
    figure_function,
    label_axes,
    new_figure,
    power_scale,
    prediction_color,
    prediction_text,
    show_map,
)
from sequencer2d.analysis.erf import ReceptiveField
from sequencer2d.analysis.hidden_states import SCAN_NAMES, HiddenStates, most_active
from sequencer2d.analysis.memory import BINS, MemoryReach
from sequencer2d.data.words import readable
from sequencer2d.errors import ConfigError

ARROWS = "↓↑→←"  # of the scans 0 to 3


@figure_function
def receptive_field_grid(models: Sequence[Sequence[ReceptiveField]]) -> Any:
    """One row per model and one column per depth, on one color scale, as in the paper's Figure 5.

    The fields' method decides what is drawn, and whether each map is scaled by its own maximum (`energy`) or all maps
    share one minimum and maximum (`paper`).

    Raises:
        ConfigError: fields by different methods.
    """
    methods = {field.method.name for fields in models for field in fields}
    if len(methods) != 1:
        raise ConfigError(
            f"fields by the methods {', '.join(sorted(methods))} in one figure: draw one method at a time"
        )
    method = models[0][0].method
    maps = iter(method.scaled([field.values for fields in models for field in fields]))
    columns = max(len(fields) for fields in models)
    figure = new_figure(max(4.0, columns * CELL + 0.9), len(models) * (CELL + 0.75) + 1.05)
    axes = figure.subplots(len(models), columns, squeeze=False)
    for row, fields in zip(axes, models, strict=True):
        for axis in row[len(fields) :]:
            axis.set_axis_off()
        for axis, field in zip(row, fields, strict=False):
            picture = show_map(axis, next(maps), cmap=method.colors, norm=power_scale(method.gamma))
            _mark_token(axis, field.center)
            axis.set_title(f"{field.model}\n{field.block}")
            axis.set_xlabel(_field_note(field), fontsize=SMALL)
    color_bar(figure, picture, axes, method.bar)
    size = "×".join(map(str, models[0][0].values.shape))
    caption(
        figure,
        "Effective receptive field: how strongly each pixel moves the token in the middle of the block's output (white "
        "frame: the pixels of that token). "
        f"{method.caption}. Input {size} pixels, images: {models[0][0].images}. cross: part of the {method.quantity} "
        "in the middle token's row and column; arms: its mean on them over that elsewhere at the same distance "
        "(1: round, above 2: a cross, –: the token is too large to tell); "
        "50/90 %: side of a square that holds that much of it.",
    )
    return figure


@figure_function
def hidden_state_figure(states: HiddenStates, channels: Sequence[int] | None = None, count: int = 6) -> Any:
    """The image, and below it chosen (or the most active) channels of each LSTM and of the fusion (Figure 4)."""
    rows = states.rows()
    columns = len(channels) if channels else count
    figure = new_figure((columns + 1) * CELL * 0.8 + 0.9, len(rows) * (CELL * 0.8 + 0.3) + 0.9)
    axes = figure.subplots(len(rows), columns + 1)
    show_map(axes[0, 0], states.image)
    axes[0, 0].set_title("image")
    for axis in axes[1:, 0]:
        axis.set_axis_off()
    for line, (title, maps) in zip(axes[:, 1:], rows, strict=True):
        chosen = list(channels) if channels else most_active(maps, count)
        limit = float(np.quantile(np.abs(maps[..., chosen]), 0.995)) or 1.0
        line[0].set_ylabel(title)
        for axis in line[len(chosen) :]:
            axis.set_axis_off()
        for axis, channel in zip(line, chosen, strict=False):
            picture = show_map(axis, maps[..., channel], cmap=STATE_COLORS, vmin=-limit, vmax=limit)
            axis.set_title(f"channel {channel}{_arrow(states, title, channel)}")
        color_bar(figure, picture, line, "output" if title == "fusion" else "hidden state h")
    which = "chosen" if channels else "most active"
    caption(
        figure,
        f"{states.model}, {states.block}: the {which} channels of what the vertical and the horizontal LSTMs put "
        f"out (arrows: the way the scan ran) and of their fusion by the linear layer. One token a cell; red positive, "
        "blue negative, one scale a row.",
    )
    return figure


@figure_function
def memory_figure(reach: MemoryReach) -> Any:
    """Half-lives of every block, axis and direction, and the distribution of forget gates."""
    figure = new_figure(9, 6.2)
    top, bottom = figure.subplots(2, 1)
    blocks = list(dict.fromkeys(scan.block for scan in reach.scans))
    kinds = sorted({scan.scan for scan in reach.scans})
    for kind in kinds:
        scans = [scan for scan in reach.scans if scan.scan == kind]
        low, middle, high = np.transpose([scan.quantiles() * scan.stride for scan in scans])
        x = np.arange(len(scans)) + (kind - np.mean(kinds)) * 0.16
        bars = [middle - low, high - middle]
        top.errorbar(x, middle, bars, fmt="o", ms=4, capsize=2, lw=1, label=SCAN_NAMES[kind])
    length = reach.scans[0].tokens * reach.scans[0].stride
    top.axhline(length, color="0.5", lw=0.8, ls="--")
    # Beside the axes: inside, late blocks' bars reach that far.
    beside = top.get_yaxis_transform()
    top.text(1.005, length, "side of\nthe scan", va="center", fontsize=7, color="0.4", transform=beside)
    top.set_yscale("log", base=2)
    top.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    label_axes(top, "", "half-life, pixels")
    top.set_title(f"{reach.model}: how far the memory of each recurrence reaches", fontsize=9)
    top.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, -0.16))
    top.set_xticks([])
    top.set_xlim(-0.5, len(blocks) - 0.5)
    merged = [np.mean([s.histogram for s in reach.scans if s.block == block], axis=0) for block in blocks]
    extent = (-0.5, len(blocks) - 0.5, 0, 1)
    density = np.transpose(merged) * BINS
    options = {"origin": "lower", "aspect": "auto", "cmap": "viridis", "norm": power_scale(0.5, None)}
    picture = bottom.imshow(density, extent=extent, **options)
    label_axes(bottom, "block, as stage.block", "forget gate\n(0: forgets, 1: keeps)")
    bottom.set_xticks(range(len(blocks)), [_short(block) for block in blocks], rotation=45)
    color_bar(figure, picture, [bottom], "density (√ scale)")
    caption(
        figure,
        "Top: pixels after which half of what a unit remembers is left (points: median over units; bars: 10 % to 90 "
        "%). Bottom: how often the forget gates, of all directions, take each value: by that factor a unit's memory "
        f"shrinks at each token. Mean over {reach.images} images.",
    )
    return figure


@figure_function
def similarity_figure(results: Sequence[Similarity]) -> Any:
    """One heat map per pair of models, on one scale."""
    figure = new_figure(4.3 * len(results) + 0.4, 4.9)
    axes = figure.subplots(1, len(results), squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        picture = axis.imshow(result.values, cmap="magma", vmin=0, vmax=1, origin="lower", aspect="auto")
        for set_ticks, names in ((axis.set_yticks, result.blocks[0]), (axis.set_xticks, result.blocks[1])):
            step = max(1, len(names) // 12)
            set_ticks(range(0, len(names), step), [_short(name) for name in names[::step]])
        label_axes(axis, f"{result.models[1]}, block as stage.block", f"{result.models[0]}, block as stage.block")
        axis.tick_params(axis="x", rotation=90)
    color_bar(figure, picture, axes, "linear CKA")
    caption(
        figure,
        "Similarity of what two blocks put out for the same images: 1 if equal up to rotation and scale, 0 if "
        f"unrelated (linear CKA, unbiased over mini-batches, {results[0].images} images).",
    )
    return figure


@figure_function
def attribution_figure(result: Attribution, class_names: Sequence[str], count: int = 8) -> Any:
    """Images above, the same under their Grad-CAM below; each with its prediction and the truth, mistakes first."""
    order = result.mistakes_first()[:count]
    figure = new_figure(max(3.2, len(order) * CELL * 0.85 + 0.8), 2 * CELL * 0.85 + 1.1)
    axes = figure.subplots(2, len(order), squeeze=False)
    names = [readable(name) for name in class_names]
    for index, (above, below) in zip(order, axes.T, strict=True):
        show_map(above, result.pixels[index])
        show_map(below, result.pixels[index])
        picture = show_map(below, result.maps[index], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        guess, truth = names[int(result.predictions[index])], _truth(result, index, names)
        said = prediction_text(guess, float(result.confidences[index]), truth, 20)
        above.set_title(said, color=prediction_color(guess, truth))
        if result.asked:
            asked = names[int(result.classes[index])]
            below.set_title(prediction_text(asked, float(result.probabilities[index]), None, 20))
    color_bar(figure, picture, axes, "relevance, of the strongest")
    about = "the class named below the photo" if result.asked else "the predicted class"
    known = result.truths is not None
    said = ", and the truth; mistakes come first" if known else "; these images have no labels"
    caption(
        figure,
        f"Grad-CAM of {result.model} at {result.block}: the brighter, the more a region speaks for {about}, relative "
        "to the strongest region of the same image. Above each photo: the prediction with its probability"
        f"{said}.",
    )
    return figure


def _truth(result: Attribution, index: int, names: Sequence[str]) -> str | None:
    """The name of an image's class; None where it is not known."""
    return None if result.truths is None or result.truths[index] < 0 else names[int(result.truths[index])]


def _mark_token(axis: Any, center: tuple[int, int, int, int]) -> None:
    """A thin frame around the pixels of the middle token."""
    from matplotlib.patches import Rectangle

    top, left, bottom, right = center
    corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
    axis.add_patch(Rectangle(corner, *size, fill=False, ec="w", lw=0.8))


def _field_note(field: ReceptiveField) -> str:
    shape = field.shape
    arms = "–" if np.isnan(shape.arm_ratio) else "∞" if np.isinf(shape.arm_ratio) else f"{shape.arm_ratio:.1f}"
    return f"cross {shape.cross_share:.0%}, arms {arms}\n50 %: {shape.side_50:.0f} px, 90 %: {shape.side_90:.0f} px"


def _arrow(states: HiddenStates, row: str, channel: int) -> str:
    """Which way the scan of a channel ran; nothing for the fusion, which takes them all."""
    if row == "fusion":
        return ""
    scans = [scan for scan in states.scans if scan in ((0, 1) if row == "vertical" else (2, 3))]
    return " " + ARROWS[scans[channel // states.states.shape[-1]]]


def _short(block: str) -> str:
    """stages.2.blocks.7 as 2.7."""
    return ".".join(part for part in block.split(".") if part.isdigit()) or block
