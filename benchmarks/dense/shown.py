"""Tables and the figure of `benchmarks/results/dense-speed.json`; `benchmarks.figures` draws it."""

from collections.abc import Callable
from typing import Any

from benchmarks.columns import Column, Row, View, fixed, millions
from benchmarks.dense.contenders import Contender, name_of

NAME, SCRIPT = "dense-speed", "benchmarks.dense.speed"
QUANTITIES = {"megapixels_per_s": "megapixels/s", "peak_memory_mib": "peak memory, MiB"}
_MAIN = {"maps": "decoder", "head": "semantic_fpn"}


def measured(rows: list[Row], mode: str, **wanted: str) -> list[Row]:
    """The rows of a mode that have a rate, by model and then by size."""
    kept = [row for row in rows if row["mode"] == mode and row.get("images_per_s") and row["requested"] == "best"]
    kept = [row for row in kept if all(row[key] == value for key, value in wanted.items())]
    return sorted(kept, key=lambda row: (not row["model"].startswith("sequencer2d"), row["model"], row["size"]))


def by_size(mode: str) -> Callable[[list[Row]], list[Row]]:
    """Rows of a table: a model each, its rate and memory at every size."""

    def rows_of(rows: list[Row]) -> list[Row]:
        found: dict[str, Row] = {}
        for row in measured(rows, mode, **_MAIN):
            name = name_of(Contender(row["model"]))
            shown = found.setdefault(name, {"model": name, "parameters": row["parameters"]})
            shown[f"rate {row['size']}"] = row["images_per_s"]
            shown[f"memory {row['size']}"] = row["peak_memory_mib"]
        return list(found.values())

    return rows_of


def costs(rows: list[Row]) -> list[Row]:
    """Rows of a table: Sequencer2D-S at one size with other maps, and without a decoder."""
    sizes = {row["size"] for row in rows if row["maps"] != "decoder"}
    found = [row for mode in ("inference", "training") for row in measured(rows, mode, model="sequencer2d_s")]
    return [
        {**row, "what": name_of(row_contender(row)), "decoder": "–" if row["head"] == "none" else "Semantic FPN"}
        for row in found
        if row["size"] in sizes
    ]


def row_contender(row: Row) -> Contender:
    """What a row measured."""
    return Contender(row["model"], row["maps"], row["head"])


_SIZES = (512, 768, 1024, 1536)
_COLUMNS = (
    Column("model", "backbone"),
    Column("parameters", "parameters", millions),
    *(Column(f"rate {size}", f"{size}²: images/s", fixed(1)) for size in _SIZES),
    *(Column(f"memory {size}", f"{size}²: MiB", fixed(0)) for size in _SIZES),
)
DENSE_TABLES = {
    "dense-inference": View(NAME, _COLUMNS, by_size("inference"), SCRIPT, leave_out_empty=True),
    "dense-training": View(NAME, _COLUMNS, by_size("training"), SCRIPT, leave_out_empty=True),
    "dense-pyramid": View(
        NAME,
        (
            Column("mode", "mode"),
            Column("size", "side, pixels"),
            Column("what", "maps"),
            Column("decoder", "decoder"),
            Column("images_per_s", "images/s", fixed(1)),
            Column("peak_memory_mib", "memory, MiB", fixed(0)),
        ),
        costs,
        SCRIPT,
    ),
}


def draw(result: dict[str, Any]) -> Any:
    """The figure: rate and memory against the size of images, a row of panels for each mode."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    modes = [mode for mode in ("inference", "training") if measured(result["rows"], mode, **_MAIN)]
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 3.4 * len(modes)), layout="constrained")
        grid = figure.subplots(len(modes), 2, squeeze=False)
        for panels, mode in zip(grid, modes, strict=True):
            rows = measured(result["rows"], mode, **_MAIN)
            for panel, (quantity, title) in zip(panels, QUANTITIES.items(), strict=True):
                _panel(panel, rows, quantity, f"{mode}: {title}")
        lines, names = grid[0][0].get_legend_handles_labels()
        highest = sorted(range(len(lines)), key=lambda k: -lines[k].get_ydata()[-1])
        figure.legend(
            [lines[k] for k in highest], [names[k] for k in highest], loc="outside right center", frameon=False
        )
        figure.suptitle(f"backbone + Semantic FPN, {result['device']['name']}, {result['date'][:10]}", fontsize=9)
    return figure


def _panel(panel: Any, rows: list[Row], quantity: str, title: str) -> None:
    rows = [row for row in rows if row.get(quantity)]
    for model in dict.fromkeys(row["model"] for row in rows):
        points = [(row["size"], row[quantity]) for row in rows if row["model"] == model]
        width = 2.4 if model.startswith("sequencer2d") else 1.2
        panel.plot(
            *zip(*points, strict=True), marker="o", markersize=3, linewidth=width, label=name_of(Contender(model))
        )
    ticks = sorted({row["size"] for row in rows})
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)
    panel.set_xlabel("side of the image, pixels")
    panel.set_ylabel(title)
    panel.grid(alpha=0.3)
