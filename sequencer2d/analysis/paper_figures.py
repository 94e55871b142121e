"""The paper's Figures 1 and 3: what it published, and beside it what was measured here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sequencer2d.analysis.charts import accuracy_by_size
from sequencer2d.analysis.drawing import caption, figure_function, label_axes, new_figure
from sequencer2d.benchmark.contenders import build, parse_contender
from sequencer2d.benchmark.cost import count_parameters
from sequencer2d.benchmark.curves import Curve
from sequencer2d.benchmark.published import SOURCE, TABLE, Published
from sequencer2d.benchmark.results import label
from sequencer2d.benchmark.table1 import Accuracy
from sequencer2d.evaluation.resolution import ResolutionResult

FAMILY_COLORS = {
    "Seq.": "C3",
    "Trans.": "C0",
    "CNN": "C2",
    "GMLP": "C4",
    "LMLP": "C1",
    "FFT": "C5",
}
FAMILY_NAMES = {
    "Seq.": "Sequencer",
    "Trans.": "Transformer",
    "CNN": "convolutions",
    "GMLP": "global MLP",
    "LMLP": "local MLP",
    "FFT": "Fourier transform",
}

LETTER, LINE = 3.9, 7.0
"""Width of a letter and height of a line of the names in Figure 1, points."""
OFFSETS = ((4, 3, False), (-4, 3, True), (4, -9, False), (-4, -9, True), (4, 10, False), (-4, -16, True))
"""Where a name may stand: right and up of its point (in points), and whether it ends there instead of beginning."""


class Point(NamedTuple):
    """A model in Figure 1.

    Attributes:
        name: as it is drawn.
        parameters: millions.
        top1: accuracy on ImageNet-1K, %.
        family: its kind of token mixing, as the paper's Table 1 abbreviates it.
        series: what a line joins; "" for a point that stands alone.
        source: where the numbers come from.
    """

    name: str
    parameters: float
    top1: float
    family: str
    series: str
    source: str


def accuracy_points(measured: Sequence[Accuracy] = ()) -> list[Point]:
    """The published models that were trained from scratch at 224 pixels, and those that were measured here.

    Args:
        measured: what `sequencer2d eval --json` wrote.

    Raises:
        ConfigError: a measured model of an unknown name.
    """
    points = [
        Point(row.name, row.parameters, row.top1, row.family, row.series, SOURCE) for row in TABLE if not row.fine_tuned
    ]
    for accuracy in measured:
        contender = parse_contender(accuracy.model)
        parameters = accuracy.parameters or count_parameters(build(contender, accuracy.size))
        name = f"{accuracy.model} at {accuracy.size}²"
        points.append(Point(name, parameters / 1e6, accuracy.top1, contender.family, "", "measured"))
    return points


@figure_function
def accuracy_figure(points: Sequence[Point]) -> Any:
    """Accuracy against parameters, as in the paper's Figure 1.

    Lines join the published models of one design. Measured models are stars.
    """
    figure = new_figure(7.2, 5.4)
    axis = figure.subplots()
    for members in _series(points):
        color = FAMILY_COLORS[members[0].family]
        ours = members[0].family == "Seq."
        axis.plot(
            [point.parameters for point in members],
            [point.top1 for point in members],
            color=color,
            marker="o",
            ms=6 if ours else 4,
            lw=2.0 if ours else 1.0,
            zorder=3 if ours else 2,
        )
    for point in points:
        if not point.series:
            color = FAMILY_COLORS.get(point.family, "0.3")
            axis.plot(point.parameters, point.top1, color=color, marker="*", ms=11, mec="k", mew=0.5, ls="", zorder=4)
    families = dict.fromkeys(point.family for point in points if point.series)
    for family in families:
        axis.plot([], [], color=FAMILY_COLORS[family], marker="o", ms=4, lw=1.2, label=FAMILY_NAMES[family])
    measured = any(not point.series for point in points)
    if measured:
        axis.plot([], [], color="0.5", marker="*", ms=9, mec="k", mew=0.5, ls="", label="measured here")
    label_axes(axis, "parameters, millions", "ImageNet-1K top-1 accuracy, %")
    axis.grid(alpha=0.25)
    axis.margins(x=0.1)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2)
    stars = " Stars: `sequencer2d eval`." if measured else ""
    caption(figure, f"Accuracy against parameters, trained from scratch at 224² ({SOURCE}).{stars}")
    _name_points(figure, axis, points)
    return figure


def references(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Published]]:
    """What the paper's Table 1 says of the models of a benchmark's rows.

    Returns:
        The label of the first curve of each model → the model's rows in the table.
    """
    labels: dict[str, str] = {}
    for row in rows:
        labels.setdefault(row["model"], label(row))
    found = {name: [entry for entry in TABLE if entry.model == model] for model, name in labels.items()}
    return {name: entries for name, entries in found.items() if entries}


@figure_function
def resolution_figure(
    results: Sequence[ResolutionResult],
    memory: Mapping[str, Curve],
    rates: Mapping[str, Curve],
    *,
    about: str,
    batch: int,
    published: Mapping[str, Sequence[Published]] | None = None,
) -> Any:
    """Accuracy, peak memory and throughput against the resolution, as in the paper's Figure 3.

    Args:
        results: accuracies for the panels a and b; empty to leave them out.
        memory: for the panel c, model → (pixels, MiB); empty where the device does not count it.
        rates: for the panel d, model → (pixels, images/s).
        about: the device and the form that memory and rates are of.
        batch: images a batch, of memory and rates.
        published: rows of the paper's Table 1 by the name of their curve, to draw as rings in c and d.
    """
    lines = bool(results) + bool(rates)
    figure = new_figure(9.0, 3.4 * lines + 0.6)
    axes = iter(figure.subplots(lines, 2, squeeze=False))
    text = []
    if results:
        left, right = next(axes)
        accuracy_by_size(left, right, results)
        left.set_title("a", fontsize=9, loc="left")
        right.set_title("b", fontsize=9, loc="left")
        text.append(
            f"Accuracy at other sizes than the {results[0].native} pixels of training (dashed), without fine-tuning, "
            f"on {results[0].count} images."
        )
    if rates:
        left, right = next(axes)
        published = published or {}
        _against_size(left, memory, "peak memory, MiB", _rings(published, lambda row: row.memory[1]))
        _against_size(right, rates, "images/s", _rings(published, lambda row: row.rates[1]))
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        left.set_title("c", fontsize=9, loc="left")
        right.set_title("d", fontsize=9, loc="left")
        note = f" Rings: {SOURCE}, one V100." if published else ""
        text.append(f"Inference, {batch} images a batch, {about}.{note}")
    caption(figure, " ".join(text))
    return figure


def _series(points: Sequence[Point]) -> list[list[Point]]:
    """The published models of each design, by their size."""
    names = dict.fromkeys(point.series for point in points if point.series)
    members = ([point for point in points if point.series == name] for name in names)
    return [sorted(found, key=lambda point: point.parameters) for found in members]


def _name_points(figure: Any, axis: Any, points: Sequence[Point]) -> None:
    """Write each point's name beside it, at the first of several places where it covers no name and no point."""
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()  # the layout decides where a point lies
    scale = 72 / figure.dpi
    places = scale * axis.transData.transform([(point.parameters, point.top1) for point in points])
    taken = [(x - 2.0, y - 2.0, x + 2.0, y + 2.0) for x, y in places]
    # What matters most is named first, where there is most room.
    order = sorted(range(len(points)), key=lambda index: (bool(points[index].series), points[index].family != "Seq."))
    for index in order:
        point, (x, y) = points[index], places[index]
        width = LETTER * len(point.name)
        boxes = [(x + dx - (width if left else 0), y + dy) for dx, dy, left in OFFSETS]
        corners = [(x0, y0, x0 + width, y0 + LINE) for x0, y0 in boxes]
        free = [box for box in corners if not any(_overlap(box, other) for other in taken)]
        box = (free or corners)[0]
        taken.append(box)
        axis.annotate(
            point.name,
            (point.parameters, point.top1),
            xytext=(box[0] - x, box[1] - y),
            textcoords="offset points",
            fontsize=6.5,
            color=FAMILY_COLORS.get(point.family, "0.3"),
            fontweight="bold" if point.family == "Seq." or not point.series else "normal",
            path_effects=[withStroke(linewidth=1.5, foreground="w")],
            zorder=5,
        )


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return bool(first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3])


def _rings(published: Mapping[str, Sequence[Published]], value: Callable[[Published], float]) -> dict[str, Curve]:
    return {name: [(row.size, value(row)) for row in rows] for name, rows in published.items()}


def _against_size(axis: Any, lines: Mapping[str, Curve], title: str, rings: Mapping[str, Curve]) -> None:
    """One curve a model on a logarithmic axis, and rings in the curve's color."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for name, points in lines.items():
        (line,) = axis.plot(*zip(*points, strict=True), marker="o", label=name)
        for size, value in rings.get(name, ()):
            axis.plot(size, value, color=line.get_color(), marker="o", ms=7, mfc="none", ls="")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    label_axes(axis, "side of the input, pixels", title)
    sizes = sorted({size for points in lines.values() for size, _ in points})
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.grid(alpha=0.25)
    if not lines:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not counted on this device", transform=axis.transAxes, ha="center", fontsize=8)
