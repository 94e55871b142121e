"""Curves through a result's rows: a quantity of each model's best form against the batch or the resolution."""

from collections.abc import Iterable
from typing import Any

from sequencer2d.benchmark.results import Row, best_rows, label

Curve = list[tuple[int, float]]


def curves(rows: Iterable[Row], axis: str, quantity: str, **fixed: Any) -> dict[str, Curve]:
    """The points of each model, in order of the axis.

    Args:
        rows: of the benchmark.
        axis: "size" (pixels) or "batch" (images).
        quantity: "images_per_s", "lowest_memory_mib" or another number of a best row.
        fixed: fields that a row must have, such as mode="inference".

    Returns:
        The model's label → (value on the axis, quantity); rows without the quantity are left out.
    """
    found: dict[str, Curve] = {}
    for row in best_rows(rows):
        if row[quantity] is not None and all(row[name] == value for name, value in fixed.items()):
            found.setdefault(label(row), []).append((row[axis], row[quantity]))
    return {name: sorted(points) for name, points in found.items()}
