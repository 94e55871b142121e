"""Makes the rows of `sequencer2d/ops/measured.py` from what `benchmarks.recurrences` measured, and prints them.

    python -m benchmarks.choices

A row stands for one cell, dtype, number of hidden units, and inference or training. It covers the measured numbers of
sequences at which the kernels were faster in every problem (called from Python, and not slower as a graph), from the
least to the greatest without a gap. It covers the hidden units above the next smaller measured size, which take as many
chunks or fewer, or are padded to that size. In bfloat16 fewer sequences than were measured count as the fewest that
were, if those do not fill the GPU: both take as long then, for cuDNN has no other kernel for few sequences in that
dtype. Nothing is said of more.
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
# Faster by less than this is as fast: so much, and more, the same layer differs between two visits to a machine.
ADVANTAGE = 1.1
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
            sizes[row["rows"]].append(_is_faster(row, kind))
    for (cell, dtype, kind), sizes in sorted(faster.items()):
        smaller = int(SMALLEST * min(sizes)) - 1
        for hidden, by_sequences in sorted(sizes.items()):
            by_count = {count: all(found) for count, found in by_sequences.items()}
            for least, most in _runs(by_count, downwards=dtype == "bfloat16"):
                yield Problems(cell, dtype, kind == "training", (smaller + 1, hidden), (least, most))
            smaller = hidden


def _is_faster(row: dict[str, Any], kind: str) -> bool:
    """Whether the kernels are faster when called from Python, and as CUDA graphs, if those were timed, not slower."""
    ours, torchs = row[f"ours_{kind}_ms"], row[f"torch_{kind}_ms"]
    graphs = row.get(f"ours_{kind}_graph_ms"), row.get(f"torch_{kind}_graph_ms")
    is_slower_as_graph = None not in graphs and graphs[0] > ADVANTAGE * graphs[1]
    return ours is not None and ADVANTAGE * ours < torchs and not is_slower_as_graph


def _runs(faster: dict[int, bool], *, downwards: bool) -> Iterator[tuple[int, int]]:
    """The least and the greatest key of each run of true values; if `downwards`, 1 for the least of few."""
    counts = sorted(faster)
    for is_faster, group in groupby(counts, key=faster.__getitem__):
        run = list(group)
        if is_faster:
            yield 1 if downwards and run[0] == counts[0] <= MOST_NOT_FULL else run[0], run[-1]


def main() -> None:
    for row in choices(measured_rows()):
        print(
            f"    Problems({row.cell!r}, {row.dtype!r}, {row.training}, {row.hidden}, {row.sequences}),".replace(
                "'", '"'
            )
        )


if __name__ == "__main__":
    main()
