"""Write the tables of `benchmarks/results/*.json` into the documentation, between markers.

python -m benchmarks.tables            # rewrite the tables
python -m benchmarks.tables --check    # exit with 1 while a table differs from its file

A table stands between `<!-- table: NAME -->` and `<!-- end: NAME -->`, NAME being a key of TABLES. Without a result
file the text between the markers says that there is none yet.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.columns import Column, View, fixed, millions, minutes
from benchmarks.efficiency_ratios import RATIO_TABLES
from benchmarks.efficiency_tables import EFFICIENCY_TABLES
from benchmarks.export_tables import EXPORT_TABLES

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/*.md")
MARKERS = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)


def percent(value: float) -> str:
    """A share from 0 to 1."""
    return f"{100 * value:.1f} %"


BATCHES = (256, 128, 64, 32, 16, 1)  # images, of the comparison of orders
BY_UNITS_COLUMNS = (
    Column("kernel", "kernel"),
    Column("hidden", "D"),
    Column("first", "first"),
    *(Column(f"ms_{batch}", f"{batch} images, ms", fixed(3)) for batch in BATCHES),
)
LAUNCH_COLUMNS = (
    Column("kernel", "kernel"),
    Column("hidden", "D"),
    Column("w_hh", "W_hh in"),
    Column("rows", "rows of a tile"),
    Column("chunk", "chunk"),
    Column("warps", "warps"),
    Column("stages", "stages"),
    Column("share", "share"),
    Column("inner", "inner"),
    Column("ahead", "products", lambda value: "all first" if value else "by chunk"),
    Column("error", "error", lambda value: f"{value:.5f}"),
    *(Column(f"ms_{batch}", f"{batch} images, ms", fixed(3)) for batch in BATCHES),
)
CURVE_COLUMNS = (
    Column("implementation", "implementation"),
    Column("seed", "seed"),
    *(Column(str(step), f"step {step}", fixed(3)) for step in (60, 120, 180, 240, 300)),
    Column("memory_mib", "memory reserved, MiB", fixed(0)),
)


def best_of_each_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fastest launch at each batch, by kernel, hidden size and what comes first in a tile."""
    found: dict[tuple[str, int, str], dict[str, Any]] = {}
    for row in rows:
        first = "units" if row["by_units"] else "rows"
        entry = found.setdefault(
            (row["kernel"], row["hidden"], first), {"kernel": row["kernel"], "hidden": row["hidden"], "first": first}
        )
        for key in (f"ms_{batch}" for batch in BATCHES):
            if key in row:
                entry[key] = min(entry.get(key, row[key]), row[key])
    return list(found.values())


def fastest_launches(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The launches that are the fastest of their kernel, hidden size and place of W_hh at some batch."""
    fastest: dict[tuple[str, int, str, str], dict[str, Any]] = {}
    for row in rows:
        for key in (f"ms_{batch}" for batch in BATCHES if f"ms_{batch}" in row):
            kind = (row["kernel"], row["hidden"], row["w_hh"], key)
            best = fastest.setdefault(kind, row)
            if row[key] < best[key]:
                fastest[kind] = row
    return [row for row in rows if any(row is best for best in fastest.values())]


def curve_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each run's losses by step."""
    return [{**row, **{str(entry["step"]): entry["loss"] for entry in row["log"]}} for row in rows]


TABLES: Mapping[str, tuple[Column, ...] | View] = {
    **RATIO_TABLES,
    **EFFICIENCY_TABLES,
    **EXPORT_TABLES,
    "cifar10": (
        Column("recipe", "recipe"),
        Column("model", "model"),
        Column("parameters", "parameters", millions),
        Column("epochs", "epochs"),
        Column("top1_percent", "test top-1, %", fixed(2)),
        Column("seconds", "time, evaluation included", minutes),
        Column("images_per_second", "training, images/s", fixed(0)),
    ),
    "recurrence": View("recurrence", LAUNCH_COLUMNS, fastest_launches),
    "recurrence-by-units": View("recurrence-by-units", BY_UNITS_COLUMNS, best_of_each_order),
    "curves": View("curves", CURVE_COLUMNS, curve_rows),
    "profile": (
        Column("run", "run"),
        Column("model", "model"),
        Column("mode", "mode"),
        Column("form", "form"),
        Column("gates", "gates"),
        Column("memory_budget", "memory budget"),
        Column("batch", "batch"),
        Column("ms", "a step, ms", fixed(2)),
        Column("graph_ms", "as a CUDA graph, ms", fixed(2)),
        Column("images_per_s", "images/s", fixed(0)),
        Column("peak_mib", "peak, MiB", fixed(0)),
    ),
    "analysis-models": (
        Column("model", "model"),
        Column("parameters", "parameters", millions),
        Column("epochs", "epochs"),
        Column("top1_percent", "val top-1, %", fixed(2)),
        Column("top5_percent", "top-5, %", fixed(2)),
        Column("seconds", "time, evaluation included", minutes),
    ),
    "analysis-erf": (
        Column("model", "model"),
        Column("block", "block"),
        Column("row_share", "row", percent),
        Column("column_share", "column", percent),
        Column("cross_share", "cross", percent),
        Column("arm_ratio", "arms over rest", fixed(1)),
        Column("side_50", "50 % in a square of, px", fixed(1)),
        Column("side_90", "90 %, px", fixed(1)),
        Column("cruciform", "a cross?", lambda value: "yes" if value else "no"),
    ),
    "analysis-memory": (
        Column("block", "block"),
        Column("direction", "direction"),
        Column("half_life_tokens", "half-life (median unit), tokens", fixed(2)),
        Column("half_life_tokens_10", "10 %", fixed(2)),
        Column("half_life_tokens_90", "90 %", fixed(2)),
        Column("half_life_pixels", "median, pixels", fixed(1)),
    ),
    "analysis-resolution": (
        Column("model", "model"),
        Column("size_pixels", "side, pixels"),
        Column("top1_percent", "top-1, %", fixed(1)),
        Column("relative_percent", "of native, %", fixed(1)),
    ),
    "analysis-robustness": (
        Column("model", "model"),
        Column("images", "images"),
        Column("clean_error_percent", "clean error, %", fixed(1)),
        Column("mean_error_percent", "mean error under corruption, %", fixed(1)),
        Column("clean_calibration_percent", "clean calibration error, %", fixed(1)),
        Column("mean_calibration_percent", "under corruption, %", fixed(1)),
    ),
    "analysis-attacks": (
        Column("model", "model"),
        Column("attack", "attack"),
        Column("steps", "steps"),
        Column("epsilon_levels", "ε, of 255", fixed(1)),
        Column("top1_percent", "top-1, %", fixed(1)),
        Column("clean_top1_percent", "clean, %", fixed(1)),
    ),
    "analysis-shape-texture": (
        Column("model", "model"),
        Column("images", "images"),
        Column("shape", "shape"),
        Column("texture", "texture"),
        Column("other", "neither"),
        Column("shape_bias_percent", "shape bias, %", fixed(1)),
    ),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is not current")
    check = parser.parse_args(arguments).check
    stale = [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern)) if update(path, check=check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'tables are not current: run ./dev bench-tables' if check else 'written'}")
    return int(check and bool(stale))


def update(path: Path, *, check: bool) -> bool:
    """Bring the tables in one document up to date (unless `check`); whether they differed."""
    before = path.read_text(encoding="utf-8")
    after = render(before, load_results(ROOT / "benchmarks" / "results"))
    if after != before and not check:
        path.write_text(after, encoding="utf-8")
    return after != before


def render(document: str, results: Mapping[str, dict[str, Any]]) -> str:
    """`document` with the text between each pair of markers replaced by that result's table."""
    return MARKERS.sub(lambda match: f"{match[1]}{_section(match['name'], results)}{match[3]}", document)


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The result files of a folder by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def table(columns: tuple[Column, ...], rows: list[dict[str, Any]]) -> str:
    """A Markdown table; a value that a row lacks is written as –."""
    lines = ["| " + " | ".join(column.title for column in columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [column.write(row[column.key]) if row.get(column.key) is not None else "–" for column in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _section(name: str, results: Mapping[str, dict[str, Any]]) -> str:
    if name not in TABLES:
        raise SystemExit(f"benchmarks/tables.py: no table named '{name}'; there are: {', '.join(TABLES)}")
    view = TABLES[name]
    if not isinstance(view, View):
        view = View(name, view, list)
    if view.result not in results:
        return f"Not yet measured: `benchmarks/{view.result.split('-')[0]}.py` writes this table's numbers.\n"
    result = results[view.result]
    return table(view.columns, view.rows(result["rows"])) + "\n" + _source(view.result, result)


def _source(name: str, result: dict[str, Any]) -> str:
    device, versions = result["device"], result["versions"]
    cuda = device["kind"] == "cuda"
    where = f"{device['count']} × {device['name']}" if cuda else f"{device['name']}, {device['threads']} threads"
    return (
        f"{where}, PyTorch {versions['torch']}, {result['date'][:10]}, commit "
        f"`{result['commit'][:10]}`; `benchmarks/results/{name}.json`.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
