"""The tables of throughput and memory, but for the paper's Table 1: every model at its best form."""

import functools
from collections.abc import Sequence

from benchmarks.columns import Column, Row, View, fixed, millions
from sequencer2d.benchmark import LEAN, best_rows, label, latest, with_ratio

PEER = "convnext_tiny"
FORMS = {
    "inference": ("eager", "compile", "graph", "optimized"),
    "training": ("eager", "compile", "graph", LEAN),
}
SIZES = (224, 448, 672, 896)
BATCHES = (1, 4, 16, 64, 256)
TRAINING_BATCHES = (16, 64, 128)
SWEEPS = {"size": "efficiency-resolutions", "batch": "efficiency"}
"""The result file of each sweep."""
DTYPE = "bf16"

_MODEL = (Column("label", "model"), Column("parameters", "parameters", millions), Column("gmacs", "GMACs", fixed(1)))
_RATIO = Column("ratio", "best, × ConvNeXt-T's", fixed(2))
_MEMORY = Column("lowest_memory_mib", "peak memory, MiB", fixed(0))


def by_form(rows: list[Row], *, mode: str, batch: int, size: int = 224, dtype: str = DTYPE) -> list[Row]:
    """One row per model: images/s of each form, the best one's ratio and latency, the least peak memory."""
    wanted = [row for row in latest(rows) if _matches(row, mode, batch, size, dtype)]
    found = []
    for best in sorted(with_ratio(best_rows(wanted), PEER), key=lambda row: -row["images_per_s"]):
        same = [row for row in wanted if _model(row) == _model(best)]
        found.append({**best, "label": label(best), **{row["form"]: row["images_per_s"] for row in same}})
    return found


def against(rows: list[Row], *, field: str, values: Sequence[int], mode: str, what: str) -> list[Row]:
    """One row per model that has several of the values, batches or sizes (`field`). what: a key of `by_form`'s rows."""
    merged: dict[tuple[str, str, str], Row] = {}
    for value in values:
        workload = {"batch": 16, field: value}
        for row in by_form(rows, mode=mode, **workload):
            merged.setdefault(_model(row), {"label": label(row)})[str(value)] = row[what]
    return [row for row in merged.values() if len(row) > 2]


def _matches(row: Row, mode: str, batch: int, size: int, dtype: str) -> bool:
    return (row["mode"], row["batch"], row["size"], row["dtype"]) == (mode, batch, size, dtype)


def _model(row: Row) -> tuple[str, str, str]:
    return row["model"], row["library"], row["implementation"]


def _forms_view(mode: str, batch: int, *more: Column) -> View:
    forms = (Column(form, form, fixed(0)) for form in FORMS[mode])
    columns = (*_MODEL, *forms, _RATIO, *more)
    return View("efficiency", columns, functools.partial(by_form, mode=mode, batch=batch))


def _sweep_view(field: str, values: Sequence[int], mode: str, what: str = "images_per_s") -> View:
    title = "{}²" if field == "size" else "batch {}"
    columns = [Column(str(value), title.format(value), fixed(0)) for value in values]
    rows = functools.partial(against, field=field, values=values, mode=mode, what=what)
    return View(SWEEPS[field], (Column("label", "model"), *columns), rows)


EFFICIENCY_TABLES = {
    "efficiency-inference": _forms_view("inference", 256, _MEMORY),
    "efficiency-training": _forms_view("training", 128, _MEMORY),
    "efficiency-latency": _forms_view("inference", 1, Column("latency_ms", "best latency, ms", fixed(2))),
    "efficiency-batch": _sweep_view("batch", BATCHES, "inference"),
    "efficiency-batch-training": _sweep_view("batch", TRAINING_BATCHES, "training"),
    "efficiency-resolution": _sweep_view("size", SIZES, "inference"),
    "efficiency-resolution-memory": _sweep_view("size", SIZES, "inference", "lowest_memory_mib"),
    "efficiency-resolution-training": _sweep_view("size", SIZES, "training"),
}
