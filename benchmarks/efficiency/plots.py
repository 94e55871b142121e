"""Figures of the sweeps in `benchmarks/results`: throughput and memory against resolution and batch.

    python -m benchmarks.efficiency.plots        # docs/figures/efficiency-*.svg

The first is the paper's Figure 3 c and d: 16 images a batch, points that do not fit into memory left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.columns import Row
from benchmarks.efficiency.tables import DTYPE, SWEEPS
from benchmarks.record import FIGURES, RESULTS
from sequencer2d.benchmark import read_result
from sequencer2d.benchmark.curves import Curve, curves

AXES = {"size": "resolution, pixels", "batch": "batch, images"}
FIXED = {"size": {"batch": 16}, "batch": {"size": 224}}
"""What stays the same along each axis."""
PLOTS = tuple((axis, mode) for mode in ("inference", "training") for axis in FIXED)
QUANTITIES = {"images_per_s": "images/s", "lowest_memory_mib": "peak memory, MiB"}
MODELS = (
    ("sequencer2d_s", "sequencer2d", "auto"),
    ("sequencer2d_s", "timm", "timm"),
    ("convnext_tiny", "timm", "timm"),
    ("swin_tiny_patch4_window7_224", "timm", "timm"),
    ("deit_small_patch16_224", "timm", "timm"),
    ("regnety_040", "timm", "timm"),
    ("poolformer_s24", "timm", "timm"),
    ("cyclemlp_b2", "peers", "plain"),
    ("gfnet_h_s", "peers", "plain"),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="of the result files")
    parser.add_argument("--folder", type=Path, default=FIGURES, metavar="FOLDER")
    options = parser.parse_args(arguments)
    for axis, mode in PLOTS:
        path = options.folder / f"efficiency-{axis}-{mode}.svg"
        figure = draw(read_result(options.results / f"{SWEEPS[axis]}.json"), axis, mode)
        if figure is not None:
            write(figure, path)
            print(path)
    return 0


class Line(NamedTuple):
    """A model's curve, in the color that the model has in every figure."""

    points: Curve
    color: str


def lines_of(rows: Sequence[Row], mode: str, axis: str, fixed: dict[str, int], quantity: str) -> dict[str, Line]:
    """The lines of the models of MODELS that have two points, in their order."""
    found: dict[str, Line] = {}
    for place, model in enumerate(MODELS):
        own = [row for row in rows if (row["model"], row["library"], row["implementation"]) == model]
        drawn = curves(own, axis, quantity, mode=mode, dtype=DTYPE, **fixed)
        found |= {name: Line(points, f"C{place}") for name, points in drawn.items() if len(points) > 1}
    return found


def draw(result: dict[str, Any], axis: str, mode: str) -> Any:
    """The figure of throughput and memory side by side; None where there is nothing to draw."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    fixed = FIXED[axis]
    lines = {quantity: lines_of(result["rows"], mode, axis, fixed, quantity) for quantity in QUANTITIES}
    if not any(lines.values()):
        return None
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        panels = figure.subplots(1, len(QUANTITIES))
        for panel, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
            _panel(panel, lines[quantity], axis, title)
        figure.legend(*_names(panels), loc="outside right center", frameon=False)
        where = ", ".join(f"batch {value}" if key == "batch" else f"{value}²" for key, value in fixed.items())
        machine = f"{result['device']['name']}, {result['date'][:10]}"
        figure.suptitle(f"{mode}, {where}, {DTYPE}, each at its best\n{machine}", fontsize=9)
    return figure


def write(figure: Any, path: Path) -> None:
    """Write a figure as an SVG; the same figure gives the same file."""
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "sequencer2d", "font.size": 9}):
        figure.savefig(path, metadata={"Date": None})


def _names(panels: Any) -> tuple[list[Any], list[str]]:
    """The lines and names of a legend, each model once, the fastest at the first point on top."""
    found = {line.get_label(): line for panel in reversed(panels) for line in panel.get_lines()}
    names = sorted(found, key=lambda name: -found[name].get_ydata()[0])
    return [found[name] for name in names], names


def _panel(panel: Any, lines: dict[str, Line], axis: str, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    for name, (points, color) in lines.items():
        ours = name.startswith("sequencer2d")
        style = {"linewidth": 2.4, "zorder": 3} if ours else {"linewidth": 1.2}
        panel.plot(*zip(*points, strict=True), marker="o", markersize=3, color=color, label=name, **style)
    ticks = sorted({x for points, _ in lines.values() for x, _ in points})
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.minorticks_off()
    panel.set_xlabel(AXES[axis])
    panel.set_ylabel(title)
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    sys.exit(main())
