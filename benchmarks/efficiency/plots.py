"""Figures of `benchmarks/results/efficiency.json`: throughput and memory against resolution and batch.

    python -m benchmarks.efficiency.plots        # docs/figures/efficiency-*.svg

The first is the paper's Figure 3 c and d: 16 images a batch, points that do not fit into memory left out.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.columns import Row
from benchmarks.efficiency.tables import DTYPE
from benchmarks.record import FIGURES, RESULTS
from sequencer2d.benchmark import read_result
from sequencer2d.benchmark.curves import Curve, curves

AXES = {"size": "resolution, pixels", "batch": "batch, images"}
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
    parser.add_argument("--result", type=Path, default=RESULTS / "efficiency.json", metavar="FILE")
    parser.add_argument("--folder", type=Path, default=FIGURES, metavar="FOLDER")
    options = parser.parse_args(arguments)
    result = read_result(options.result)
    for mode in ("inference", "training"):
        for axis, fixed in (("size", {"batch": 16}), ("batch", {"size": 224})):
            path = options.folder / f"efficiency-{axis}-{mode}.svg"
            if draw(result, mode, axis, fixed, path):
                print(path)
    return 0


def lines_of(rows: Sequence[Row], mode: str, axis: str, fixed: dict[str, int], quantity: str) -> dict[str, Curve]:
    """The curves of the models of MODELS that have two points, in their order."""
    found: dict[str, Curve] = {}
    for model in MODELS:
        own = [row for row in rows if (row["model"], row["library"], row["implementation"]) == model]
        found |= curves(own, axis, quantity, mode=mode, dtype=DTYPE, **fixed)
    return {name: points for name, points in found.items() if len(points) > 1}


def draw(result: dict[str, Any], mode: str, axis: str, fixed: dict[str, int], path: Path) -> bool:
    """Draw throughput and memory side by side; False where there is nothing to draw."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines = {quantity: lines_of(result["rows"], mode, axis, fixed, quantity) for quantity in QUANTITIES}
    if not any(lines.values()):
        return False
    with plt.rc_context({"svg.hashsalt": "sequencer2d", "font.size": 9}):
        figure, panels = plt.subplots(1, len(QUANTITIES), figsize=(9, 3.4), layout="constrained")
        for panel, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
            _panel(panel, lines[quantity], axis, title)
        panels[0].legend(frameon=False)
        where = ", ".join(f"batch {value}" if key == "batch" else f"{value}²" for key, value in fixed.items())
        machine = f"{result['device']['name']}, {result['date'][:10]}"
        figure.suptitle(f"{mode}, {where}, {DTYPE}, each at its best\n{machine}", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True


def _panel(panel: Any, lines: dict[str, Curve], axis: str, title: str) -> None:
    for name, points in lines.items():
        panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    ticks = sorted({x for points in lines.values() for x, _ in points})
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel(AXES[axis])
    panel.set_ylabel(title)
    panel.grid(alpha=0.3)


if __name__ == "__main__":
    sys.exit(main())
