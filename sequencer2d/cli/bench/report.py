"""What `sequencer2d bench` prints: one row in a line, tables by workload, the paper's Table 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sequencer2d import terminal
from sequencer2d.cli.common import console
from sequencer2d.terminal import plain_table

if TYPE_CHECKING:
    from sequencer2d.benchmark import Accuracy

TITLES = ("model", "form", "images/s", "ratio", "latency, ms", "peak, MiB", "lowest peak, MiB", "parameters", "GMACs")
TABLE1_TITLES = (
    "model",
    "family",
    "batch",
    "res.",
    "parameters",
    "GMACs",
    "paper's protocol: images/s",
    "peak, MiB",
    "at its best: images/s",
    "lowest peak, MiB",
    "top-1, %",
)


def report(
    rows: list[dict[str, Any]], layout: str, *, peer: str, accuracies: Sequence[Accuracy] = (), as_json: bool = False
) -> None:
    """Print the rows of a result.

    Args:
        rows: as `ResultFile` holds them.
        layout: "workloads", each model's best form with its ratio to `peer`, or "table1".
        peer: name of the model that ratios compare with.
        accuracies: of "table1".
        as_json: the values of the tables as JSON instead.
    """
    from sequencer2d.benchmark import best_rows, latest, table1, with_ratio

    shown = table1(rows, accuracies) if layout == "table1" else with_ratio(best_rows(rows), peer)
    if as_json:
        terminal.write_json(shown)
        return
    if layout == "table1":
        console().print(_table1(shown))
    else:
        for title, group in _by_workload(shown).items():
            console().print(_table(title, group, peer))
    failed = [row for row in latest(rows) if row["error"]]
    if failed:
        console().print(f"Without a rate ({len(failed)}):")
    for row in failed:
        console().print(f"  {row_line(row)}", highlight=False, markup=False, soft_wrap=True)


def row_line(row: dict[str, Any]) -> str:
    """One row in one line."""
    from sequencer2d.benchmark import label

    where = f"{label(row)}, {row['form']}, {row['mode']} {row['dtype']}, batch {row['batch']}, {row['size']}²"
    if row["error"]:
        return f"{where}: {row['error']}"
    memory = f", {row['peak_memory_mib']:,.0f} MiB" if row["peak_memory_mib"] is not None else ""
    return f"{where}: {row['images_per_s']:,.1f} images/s, {row['latency_ms']:.3f} ms{memory}"


def _by_workload(best: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in best:
        groups.setdefault(f"{row['mode']}, {row['dtype']}, batch {row['batch']}, {row['size']}²", []).append(row)
    return {title: sorted(group, key=lambda row: -row["images_per_s"]) for title, group in groups.items()}


def _table(title: str, rows: list[dict[str, Any]], peer: str) -> Any:
    from sequencer2d.benchmark import label

    table = plain_table(title=title)
    for name in TITLES:
        text = name in ("model", "form")
        table.add_column(f"× {peer}" if name == "ratio" else name, justify="left" if text else "right", no_wrap=text)
    for row in rows:
        table.add_row(
            label(row),
            row["form"],
            f"{row['images_per_s']:,.1f}",
            _number(row["ratio"], ".2f"),
            f"{row['latency_ms']:,.3f}",
            _number(row["peak_memory_mib"], ",.0f"),
            _number(row["lowest_memory_mib"], ",.0f"),
            f"{row['parameters'] / 1e6:.1f} M",
            _number(row["gmacs"], ".2f"),
        )
    return table


def _table1(rows: list[dict[str, Any]]) -> Any:
    """As in the paper, training stands left of a slash and inference right of it."""
    table = plain_table(title="training/inference")
    for name in TABLE1_TITLES:
        table.add_column(name, justify="left" if name in ("model", "family") else "right")
    for row in rows:
        measured = (
            "/".join(_number(row[f"{protocol}_{mode}_{what}"], ",.0f") for mode in ("training", "inference"))
            for protocol in ("paper", "best")
            for what in ("rate", "memory")
        )
        about = (row["label"], row["family"], str(row["batch"]), f"{row['size']}²", f"{row['parameters'] / 1e6:.1f} M")
        table.add_row(*about, _number(row["gmacs"], ".2f"), *measured, _number(row["top1"], ".2f"))
    return table


def _number(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)
