"""Where the parts of the analysis write: rows, figures, and links to figures in the document."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.analysis.stored import FIGURES, Stored
from benchmarks.record import origin, write_result

SCRIPT = "benchmarks.analysis"
LARGEST = 400 * 1024  # bytes of a figure
FIGURE = re.compile(r"(<!-- figure: (\S+) \((.*?)\) -->\n)(?:!\[.*\n)?")


class Run:
    """The models, the images of each, and where results go. Parts write rows before figures: numbers cost more."""

    def __init__(self, arguments: argparse.Namespace, subjects: list[Any], source: Any) -> None:
        self.arguments, self.subjects, self.source = arguments, subjects, source

    def pixels(self, subject: Any, count: int | None = None) -> np.ndarray:
        """uint8 images as `subject` takes them, the same ones for every model."""
        from sequencer2d.evaluation.pixels import choose, read_batches

        chosen = choose(len(self.source), count or self.arguments.images)
        return np.concatenate([batch.pixels for batch in read_batches(self.source, subject.data, indices=chosen)])

    def arrays(self, name: str, number: int, save: Callable[[Path], None]) -> None:
        """Let a result save itself as benchmarks/results/arrays/analysis-NAME-NUMBER.npz."""
        folder = self.arguments.results / "arrays"
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / f"analysis-{name}-{number:02d}.npz")

    def draw(self, name: str) -> None:
        """Draw docs/figures/analysis-NAME.png from what was stored, as it is drawn again later."""
        figure = FIGURES[name](Stored(self.arguments.results))
        write_figure(figure, self.arguments.figures / f"analysis-{name}.png")

    def rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        """benchmarks/results/analysis-NAME.json."""
        full = f"analysis-{name.replace('_', '-')}"
        result = {**origin(full, SCRIPT, self.arguments.command), "rows": [_plain(row) for row in rows]}
        write_result(result, self.arguments.results / f"{full}.json")


def write_figure(figure: Any, path: Path) -> None:
    """A PNG at a resolution that keeps it small."""
    from sequencer2d.analysis.figure_files import figure_bytes
    from sequencer2d.files import atomic_write

    for dpi in (130, 100, 80, 60):
        content = figure_bytes(figure, "png", dpi)
        if len(content) <= LARGEST:
            break
    with atomic_write(path) as file:
        file.write(content)


def link_figures(document: Path) -> None:
    """Show each figure that exists below its marker `<!-- figure: FILE (TEXT) -->`."""

    def show(match: re.Match[str]) -> str:
        there = (document.parent / "figures" / match[2]).exists()
        return match[1] + (f"![{match[3]}](figures/{match[2]})\n" if there else "")

    document.write_text(FIGURE.sub(show, document.read_text(encoding="utf-8")), encoding="utf-8")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON values: numpy's scalars as Python's, numbers that are not finite as None."""
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in plain.items()}
