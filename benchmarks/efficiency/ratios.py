"""Sequencer against the peer of its class, workload by workload: rates and memory of both, and their ratio.

Each side stands at its best; a comparison that names Sequencer's form shows it beside the peer's same form or best one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.columns import Column, Row, View, fixed
from sequencer2d.benchmark import LEAN, best_rows, label, latest, parse_contender

DTYPE = "bf16"
RATE = "images_per_s"
MEMORY = "lowest_memory_mib"
PEAK = "peak_memory_mib"


class Comparison(NamedTuple):
    """Two contenders on one workload.

    `quantity`: images/s, the least peak memory of any usual form, or the peak memory of the form that is shown (MiB).
    `form` is ours, `peer_form` the peer's; none: the fastest.
    """

    ours: str
    peer: str
    mode: str
    batch: int
    size: int = 224
    quantity: str = RATE
    form: str | None = None
    peer_form: str | None = None


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
    Comparison("sequencer2d_s@recompute", "convnext_tiny", "training", 128, 224, RATE, LEAN),
    Comparison("sequencer2d_s@recompute", "convnext_tiny", "training", 128, 224, PEAK, LEAN),
    Comparison("sequencer2d_s@recompute", "convnext_tiny", "training", 128, 224, PEAK, LEAN, LEAN),
    Comparison("sequencer2d_s@recompute", "deit_small", "training", 128, 224, PEAK, LEAN),
    Comparison("sequencer2d_s@recompute", "deit_small", "training", 128, 224, PEAK, LEAN, LEAN),
)


def ratios(rows: list[Row], comparisons: Sequence[Comparison] = COMPARISONS) -> list[Row]:
    """Those of the comparisons for which both sides were measured."""
    shown = {(*_key(row), row["form"]): row for row in latest(rows) if row.get(RATE)}
    shown |= {(*_key(row), None): row for row in best_rows(rows)}
    found = []
    for comparison in comparisons:
        ours = shown.get(_wanted(comparison.ours, comparison.form, comparison))
        peer = shown.get(_wanted(comparison.peer, comparison.peer_form, comparison))
        if ours is not None and peer is not None and ours[comparison.quantity] and peer[comparison.quantity]:
            found.append(_entry(comparison, ours, peer))
    return found


def _entry(comparison: Comparison, ours: Row, peer: Row) -> Row:
    value, other = ours[comparison.quantity], peer[comparison.quantity]
    return {
        "workload": f"{comparison.mode}, batch {comparison.batch}, {comparison.size}²",
        "quantity": "images/s" if comparison.quantity == RATE else "peak memory, MiB",
        "ours": label(ours) if comparison.quantity == MEMORY else f"{label(ours)}, {ours['form']}",
        "value": value,
        "peer": label(peer) if comparison.quantity == MEMORY else f"{label(peer)}, {peer['form']}",
        "other": other,
        "ratio": value / other,
    }


def _key(row: Row) -> tuple[object, ...]:
    identity = (row["model"], row["library"], row["implementation"])
    return *identity, row["mode"], row["dtype"], row["batch"], row["size"]


def _wanted(name: str, form: str | None, at: Comparison) -> tuple[object, ...]:
    contender = parse_contender(name)
    return contender.model, contender.library, contender.implementation, at.mode, DTYPE, at.batch, at.size, form


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
