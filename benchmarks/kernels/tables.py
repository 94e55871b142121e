"""The tables of the kernels: launches, whole models by kernel, and loss curves beside cuDNN's."""

from collections.abc import Mapping
from typing import Any

from benchmarks.columns import Column, View, fixed

BATCHES = (256, 128, 64, 32, 16, 1)  # images, of the comparison of orders
BY_UNITS_COLUMNS = (
    Column("kernel", "kernel"),
    Column("hidden", "D"),
    Column("first", "first"),
    *(Column(f"ms_{batch}", f"{batch} images, ms", fixed(3)) for batch in BATCHES),
)
LAUNCH = (
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
)


def launch_columns(*batches: int) -> tuple[Column, ...]:
    """The columns of a table of launches that were timed with so many images."""
    return *LAUNCH, *(Column(f"ms_{batch}", f"{batch} images, ms", fixed(3)) for batch in batches)


# With the tiles of W_hh that registers and shared memory hold, without what only other launches have.
SPREAD_COLUMNS = (
    *LAUNCH[:3],
    Column("register_tiles", "tiles in registers"),
    Column("shared_tiles", "in shared memory"),
    *(column for column in launch_columns(256, 64, 1)[3:] if column.key not in ("chunk", "inner", "ahead")),
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


KERNEL_TABLES: Mapping[str, View] = {
    "recurrence": View("recurrence", launch_columns(*BATCHES), fastest_launches),
    "recurrence-128": View("trials/recurrence-128", launch_columns(64, 16, 1), fastest_launches),
    "recurrence-spread": View("trials/recurrence-spread", SPREAD_COLUMNS, fastest_launches),
    "recurrence-by-units": View("trials/recurrence-by-units", BY_UNITS_COLUMNS, best_of_each_order),
    "curves": View("curves", CURVE_COLUMNS, curve_rows),
    "profile": View(
        "trials/profile",
        (
            Column("run", "run"),
            Column("commit", "commit", lambda commit: f"`{commit}`"),
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
        list,
    ),
}
