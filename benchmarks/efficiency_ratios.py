"""Sequencer against the peer of its class, workload by workload: the rates at each one's best, and their ratio."""

from typing import NamedTuple

from benchmarks.columns import Column, Row, View, fixed
from sequencer2d.evaluation.benchmark import Subject, best_rows, label, parse_subject

DTYPE = "bf16"
RATE = "images_per_s"
MEMORY = "lowest_memory_mib"


class Comparison(NamedTuple):
    """Two subjects on one workload; `quantity` is images/s or the least peak memory (MiB)."""

    ours: str
    peer: str
    mode: str
    batch: int
    size: int = 224
    quantity: str = RATE


COMPARISONS = (
    Comparison("sequencer2d_s", "convnext_tiny", "inference", 256),
    Comparison("sequencer2d_s", "timm:sequencer2d_s", "inference", 256),
    Comparison("sequencer2d_m", "swin_small", "inference", 256),
    Comparison("sequencer2d_l", "swin_small", "inference", 256),
    Comparison("sequencer2d_l", "convnext_small", "inference", 256),
    Comparison("sequencer2d_s", "convnext_tiny", "training", 128),
    Comparison("sequencer2d_s", "timm:sequencer2d_s", "training", 128),
    Comparison("sequencer2d_s", "convnext_tiny", "inference", 1),
    Comparison("sequencer2d_s", "timm:sequencer2d_s", "inference", 1),
    Comparison("sequencer2d_s", "convnext_tiny", "inference", 16, 448),
    Comparison("sequencer2d_s", "deit_small", "inference", 16, 448),
    Comparison("sequencer2d_s", "convnext_tiny", "inference", 16, 896),
    Comparison("sequencer2d_s", "deit_small", "inference", 16, 896),
    Comparison("timm:sequencer2d_s@fuse", "sequencer2d_s", "inference", 256),
    Comparison("timm:sequencer2d_s@fuse", "sequencer2d_s", "training", 128),
    Comparison("sequencer2d_s@recompute", "convnext_tiny", "training", 128),
    Comparison("sequencer2d_s", "convnext_tiny", "training", 128, 224, MEMORY),
    Comparison("sequencer2d_s@recompute", "convnext_tiny", "training", 128, 224, MEMORY),
    Comparison("sequencer2d_s@recompute", "deit_small", "training", 128, 224, MEMORY),
)


def ratios(rows: list[Row]) -> list[Row]:
    """The comparisons for which both sides were measured."""
    best = {_key(row): row for row in best_rows(rows)}
    found = []
    for comparison in COMPARISONS:
        ours, peer = (best.get(_wanted(parse_subject(name), comparison)) for name in comparison[:2])
        if ours is not None and peer is not None and ours[comparison.quantity] and peer[comparison.quantity]:
            found.append(_entry(comparison, ours, peer))
    return found


def _entry(comparison: Comparison, ours: Row, peer: Row) -> Row:
    value, other = ours[comparison.quantity], peer[comparison.quantity]
    return {
        "workload": f"{comparison.mode}, batch {comparison.batch}, {comparison.size}²",
        "quantity": "images/s" if comparison.quantity == RATE else "peak memory, MiB",
        "ours": f"{label(ours)}, {ours['form']}" if comparison.quantity == RATE else label(ours),
        "value": value,
        "peer": f"{label(peer)}, {peer['form']}" if comparison.quantity == RATE else label(peer),
        "other": other,
        "ratio": value / other,
    }


def _key(row: Row) -> tuple[object, ...]:
    identity = (row["model"], row["library"], row["implementation"])
    return *identity, row["mode"], row["dtype"], row["batch"], row["size"]


def _wanted(subject: Subject, at: Comparison) -> tuple[object, ...]:
    return subject.model, subject.library, subject.implementation, at.mode, DTYPE, at.batch, at.size


RATIO_TABLES = {
    "efficiency-ratios": View(
        "efficiency",
        (
            Column("workload", "workload"),
            Column("quantity", "quantity"),
            Column("ours", "Sequencer"),
            Column("value", "its value", fixed(0)),
            Column("peer", "peer"),
            Column("other", "its value", fixed(0)),
            Column("ratio", "ratio", fixed(2)),
        ),
        ratios,
    )
}
