"""Draw the figures of the documentation anew from stored results, and say which of them are stale.

    python -m benchmarks.figures            # draw the stale ones
    python -m benchmarks.figures --check    # exit with 1 while one is stale

A figure is stale where the code as it is, with the results as they are, would put something else into it.
`docs/figures/drawn.json` holds a hash of what each of them contained when it was drawn, which does not depend on the
version of matplotlib.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.analysis.stored import FIGURES as ANALYSIS
from benchmarks.analysis.stored import Stored
from benchmarks.analysis.writing import write_figure
from benchmarks.contents import fingerprint
from benchmarks.dense import shown as dense
from benchmarks.efficiency import plots
from benchmarks.record import FIGURES, RESULTS
from benchmarks.tiny_imagenet.plots import draw_shipped
from sequencer2d.files import read_json, write_json

RECORD = FIGURES / "drawn.json"


class Drawing(NamedTuple):
    """How a figure comes about."""

    draw: Callable[[], Any]
    """Raises `FileNotFoundError` where no run has stored what it shows."""
    write: Callable[[Any, Path], None]


def drawings(results: Path = RESULTS) -> dict[str, Drawing]:
    """Every figure that is drawn from stored results, by the name of its file."""
    from sequencer2d.benchmark import read_result

    def efficiency(axis: str, mode: str) -> Callable[[], Any]:
        return lambda: plots.draw(read_result(results / f"{plots.SWEEPS[axis]}.json"), axis, mode)

    def analysis(draw: Callable[[Stored], Any]) -> Callable[[], Any]:
        return lambda: draw(Stored(results))

    return {
        **{f"efficiency-{axis}-{mode}.svg": Drawing(efficiency(axis, mode), plots.write) for axis, mode in plots.PLOTS},
        **{f"analysis-{name}.png": Drawing(analysis(draw), write_figure) for name, draw in ANALYSIS.items()},
        "evidence-shipped.svg": Drawing(
            lambda: draw_shipped(read_json(results / "tiny-imagenet-shipped.json")), plots.write
        ),
        f"{dense.NAME}.svg": Drawing(lambda: dense.draw(read_json(results / f"{dense.NAME}.json")), plots.write),
    }


def state(folder: Path = FIGURES) -> dict[str, str | None]:
    """The hash of what each figure of `folder` would contain now; None where no run has stored what it shows."""
    found: dict[str, str | None] = {}
    for name, drawing in drawings().items():
        if (folder / name).is_file():
            try:
                found[name] = fingerprint(drawing.draw())
            except FileNotFoundError:
                found[name] = None
    return found


def stale(folder: Path = FIGURES) -> list[str]:
    """The figures of `folder` that would be others now."""
    recorded = json.loads((folder / RECORD.name).read_text(encoding="utf-8"))
    now = state(folder)
    return sorted(name for name in now | recorded if now.get(name, "gone") != recorded.get(name, "new"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 while a figure is stale; draw nothing")
    arguments = parser.parse_args(argv)
    found = stale() if RECORD.is_file() else sorted(drawings())
    if arguments.check:
        print(*(f"{name} is stale: python -m benchmarks.figures" for name in found), sep="\n")
        return 1 if found else 0
    known = drawings()
    for name in found:
        if name in known:
            try:
                known[name].write(known[name].draw(), FIGURES / name)
                print(f"drawn: {name}")
            except FileNotFoundError as error:
                print(f"left as it is: {name} ({error})")
    write_json(RECORD, state())
    return 0


if __name__ == "__main__":
    sys.exit(main())
