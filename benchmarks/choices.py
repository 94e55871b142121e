"""Makes the rows of `sequencer2d/ops/measured.py` from what `benchmarks.recurrences` measured, and prints them.

    python -m benchmarks.choices

A row stands for one cell, dtype, number of hidden units, and inference or training. It covers the measured numbers of
sequences at which the kernels were faster in every problem, from the least to the greatest without a gap. It covers the
hidden units above the next smaller measured size, which take as many chunks or fewer, or are padded to that size. Fewer
sequences than were measured count as the fewest that were, if those do not fill the GPU: both take as long then.
Nothing is said of more.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from benchmarks.record import RESULTS
from benchmarks.recurrence_timing import KINDS
from sequencer2d.ops.measured import Problems

FILES = ("recurrences", "recurrences_sweep")
# The fewest hidden units that the smallest measured size stands for, as a part of it.
SMALLEST = 0.75
# Faster by less than this is as fast.
ADVANTAGE = 1.03
# Sequences that do not fill an H200: two scans in tiles of eight sequences on 132 multiprocessors.
MOST_NOT_FULL = 512


def measured_rows() -> list[dict[str, Any]]:
    """The rows of the result files that are there."""
    paths = [RESULTS / f"{name}.json" for name in FILES]
    return [row for path in paths if path.exists() for row in json.loads(path.read_text())["rows"]]


def choices(rows: Iterable[dict[str, Any]]) -> Iterator[Problems]:
    """The rows of the table, in the order of cell, dtype, kind and hidden units."""
    faster: dict[tuple[str, str, str], dict[int, dict[int, list[bool]]]] = defaultdict(dict)
    for row in rows:
        for kind in KINDS:
            sizes = faster[row["cell"], row["dtype"], kind].setdefault(row["hidden"], defaultdict(list))
            ours = row[f"ours_{kind}_ms"]
            sizes[row["rows"]].append(ours is not None and ADVANTAGE * ours < row[f"torch_{kind}_ms"])
    for (cell, dtype, kind), sizes in sorted(faster.items()):
        smaller = int(SMALLEST * min(sizes)) - 1
        for hidden, by_sequences in sorted(sizes.items()):
            for least, most in _runs({count: all(found) for count, found in by_sequences.items()}):
                yield Problems(cell, dtype, kind == "training", (smaller + 1, hidden), (least, most))
            smaller = hidden


def _runs(faster: dict[int, bool]) -> Iterator[tuple[int, int]]:
    """The least and the greatest key of each run of true values; 1 for the least of all if it leaves the GPU room."""
    counts = sorted(faster)
    for is_faster, group in groupby(counts, key=faster.__getitem__):
        run = list(group)
        if is_faster:
            yield 1 if run[0] == counts[0] <= MOST_NOT_FULL else run[0], run[-1]


def main() -> None:
    for row in choices(measured_rows()):
        print(
            f"    Problems({row.cell!r}, {row.dtype!r}, {row.training}, {row.hidden}, {row.sequences}),".replace(
                "'", '"'
            )
        )


if __name__ == "__main__":
    main()
