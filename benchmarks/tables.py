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

from benchmarks.analysis.tables import ANALYSIS_TABLES
from benchmarks.bccd import BCCD_COLUMNS
from benchmarks.camvid import CAMVID_COLUMNS
from benchmarks.columns import Column, View, fixed, millions, minutes
from benchmarks.cycle_shift import CYCLE_SHIFT_COLUMNS
from benchmarks.dense.shown import DENSE_TABLES
from benchmarks.efficiency.overview import OVERVIEW_TABLES
from benchmarks.efficiency.ratios import RATIO_TABLES
from benchmarks.efficiency.table1 import TABLE1_TABLES
from benchmarks.efficiency.tables import EFFICIENCY_TABLES
from benchmarks.export.tables import EXPORT_TABLES
from benchmarks.input import INPUT_COLUMNS
from benchmarks.jpeg_crop import CROP_COLUMNS
from benchmarks.kernels.tables import KERNEL_TABLES
from benchmarks.own_photos import OWN_PHOTOS_COLUMNS
from benchmarks.public_models import PUBLIC_MODELS_COLUMNS
from benchmarks.recurrences import RECURRENCES_COLUMNS
from benchmarks.restriding import COLUMNS as RESTRIDING_COLUMNS
from benchmarks.tiny_imagenet.tables import TINY_IMAGENET_TABLES

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/*.md")
COMMIT = re.compile(r"\b[0-9a-f]{7,40}(?:\+changes)?")
MARKERS = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)


TABLES: Mapping[str, tuple[Column, ...] | View] = {
    **RATIO_TABLES,
    **OVERVIEW_TABLES,
    **EFFICIENCY_TABLES,
    **TABLE1_TABLES,
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
    **KERNEL_TABLES,
    **ANALYSIS_TABLES,
    **TINY_IMAGENET_TABLES,
    "own-photos": OWN_PHOTOS_COLUMNS,
    "bccd": BCCD_COLUMNS,
    "restriding": RESTRIDING_COLUMNS,
    "camvid": CAMVID_COLUMNS,
    **DENSE_TABLES,
    "input": INPUT_COLUMNS,
    "jpeg-crop": CROP_COLUMNS,
    "public_models": PUBLIC_MODELS_COLUMNS,
    "recurrences": RECURRENCES_COLUMNS,
    "cycle_shift": CYCLE_SHIFT_COLUMNS,
    "pad": (
        Column("size_pixels", "side, pixels"),
        Column("over", "over a multiple of 14"),
        Column("crop_top1_percent", "crop: top-1, %", fixed(2)),
        Column("zeros_top1_percent", "zeros: top-1, %", fixed(2)),
        Column("gain_points", "zeros − crop, points", lambda value: f"{value:+.2f}"),
        Column("gain_error_points", "standard error", fixed(2)),
    ),
    "timm-suite": (
        Column("test", "test of timm's"),
        Column("as_sequencer", "timm runs it on its own Sequencers", lambda value: "yes" if value else "no"),
        Column("models", "models"),
        Column("passed", "pass"),
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
    """The result files of a folder and its folders, by path below it without the ending: "trials/profile"."""
    paths = sorted(folder.rglob("*.json"))
    return {
        path.relative_to(folder).with_suffix("").as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in paths
    }


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
    script = view.script or f"benchmarks.{view.result.split('-')[0]}"
    missing = f"Not yet measured: `python -m {script}` writes this table's numbers.\n"
    if view.result not in results:
        return missing
    result = results[view.result]
    rows = view.rows(result["rows"])
    if not rows:
        return missing
    columns = view.columns
    if view.leave_out_empty:
        columns = tuple(column for column in columns if any(row.get(column.key) is not None for row in rows))
    return table(columns, rows) + "\n" + _source(view.result, result)


def _source(name: str, result: dict[str, Any]) -> str:
    device, versions = result["device"], result["versions"]
    cuda = device["kind"] == "cuda"
    where = f"{device['count']} × {device['name']}" if cuda else f"{device['name']}, {device['threads']} threads"
    note = f" {result['note']}" if "note" in result else ""
    return (
        f"{where}, PyTorch {versions['torch']}, {result['date'][:10]}, {_commits(result['commit'])}; "
        f"`benchmarks/results/{name}.json`.{note}\n"
    )


def _commits(text: str) -> str:
    """A file's commit, or all of them, ten digits each."""
    found = [f"`{re.sub('[0-9a-f]{11,}', lambda digits: digits[0][:10], commit)}`" for commit in COMMIT.findall(text)]
    return f"commit{'s' if len(found) > 1 else ''} {', '.join(found)}"


if __name__ == "__main__":
    sys.exit(main())
