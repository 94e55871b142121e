"""Figures of `benchmarks/results/tiny-imagenet-*.json`: accuracy against GPU time, and against resolution.

    python -m benchmarks.tiny_imagenet.plots        # docs/figures/evidence-*.svg

A mark is a model's mean over its seeds, its bar one standard deviation. Figures without results are not drawn.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.columns import Row
from benchmarks.record import FIGURES, RESULTS
from benchmarks.tiny_imagenet.rows import read_rows
from benchmarks.tiny_imagenet.tables import gpu_minutes

PLANS_BY_TIME = ("table1", "small", "ablations")
Point = tuple[float, float, float]
"""GPU minutes of a run, top-1 (%), and its standard deviation over the seeds."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER")
    parser.add_argument("--folder", type=Path, default=FIGURES, metavar="FOLDER")
    options = parser.parse_args(argv)
    for plan in PLANS_BY_TIME:
        if points := points_by_model(read_rows(options.results / f"tiny-imagenet-{plan}.json")):
            draw_points(points, options.folder / f"evidence-{plan}.svg")
    if rows := read_rows(options.results / "tiny-imagenet-resolution.json"):
        draw_lines(rows, options.folder / "evidence-resolution.svg")
    return 0


def points_by_model(rows: list[Row]) -> dict[str, Point]:
    """Where each model's mark stands."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["model"], []).append(row)
    points = {}
    for model, group in groups.items():
        top1 = [row["top1_percent"] for row in group]
        minutes = statistics.fmean(map(gpu_minutes, group))
        points[model] = (minutes, statistics.fmean(top1), statistics.stdev(top1) if len(top1) > 1 else 0.0)
    return points


def draw_points(points: dict[str, Point], path: Path) -> None:
    """Accuracy against GPU time."""

    def draw(panel: Any) -> None:
        for model, (minutes, top1, spread) in points.items():
            panel.errorbar(minutes, top1, yerr=spread, marker="o", capsize=3, color="C1" if _is_ours(model) else "C0")
            panel.annotate(model, (minutes, top1), xytext=(5, 3), textcoords="offset points", fontsize=7)
        panel.set_xlabel("GPU minutes of a run")

    _save(draw, path)


def draw_lines(rows: list[Row], path: Path) -> None:
    """Accuracy against the size of the images over that of training, one line a run."""

    def draw(panel: Any) -> None:
        for row in rows:
            sizes = [size / row["native"] for size in row["sizes"]]
            label = f"{row['plan']}: {row['model']}" if row["seed"] == rows[0]["seed"] else None
            panel.plot(sizes, row["top1_percent"], marker="o", markersize=3, label=label)
        panel.set_xlabel("side over that of training")
        panel.legend(frameon=False, fontsize=6)

    _save(draw, path)


def draw_shipped(result: dict[str, Any]) -> Any:
    """The figure of the model that ships: its loss through hard stops, and its accuracy against the size of images."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    row = result["rows"][0]
    plateau, decay = row["curve"]["plateau"], row["curve"]["decay"]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        losses, sizes = figure.subplots(1, 2, width_ratios=(3, 2))
        losses.plot([point[0] for point in plateau], [point[1] for point in plateau], lw=0.8, label="constant rate")
        moved = [plateau[-1][0] + point[0] for point in decay]
        losses.plot(moved, [point[1] for point in decay], lw=0.8, label="falling rate")
        for number, stop in enumerate(row["stops"]):
            label = None if number else "goes on after a hard stop"
            losses.axvline(stop["goes_on_at_step"], color="C3", lw=0.8, ls="--", label=label)
        losses.set(xlabel="step", ylabel="training loss, mean of 39 steps")
        losses.legend(frameon=False)
        sizes.plot(row["sizes"], row["sizes_top1_percent"], marker="o", markersize=3)
        sizes.set(xlabel="side of the images, pixels", ylabel="top-1 on Tiny-ImageNet, %")
        for panel in (losses, sizes):
            panel.grid(alpha=0.3)
    return figure


def _is_ours(model: str) -> bool:
    return model.startswith("sequencer2d")


def _save(draw: Any, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "sequencer2d", "font.size": 9}):
        figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
        draw(panel)
        panel.set_ylabel("top-1 on Tiny-ImageNet, %")
        panel.grid(alpha=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
