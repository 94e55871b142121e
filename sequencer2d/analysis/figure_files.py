"""Figures as files: PDF, SVG, and small PNGs; the same figure gives the same bytes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sequencer2d.errors import ConfigError
from sequencer2d.figure_text import save
from sequencer2d.files import atomic_write

# Formats, each with the metadata that leaves the time of writing out.
FORMATS: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
DPI = 130
VISIBLE = 6
"""Levels of 255 by which a color may be off without being seen."""


def save_figure(figure: Any, path: str | Path, formats: Sequence[str] = tuple(FORMATS), dpi: int = DPI) -> list[Path]:
    """Write a figure beside `path` (its suffix is replaced) in each format; returns the files.

    Raises:
        ConfigError: another format than pdf, svg or png.
    """
    wrong = [name for name in formats if name not in FORMATS]
    if wrong:
        raise ConfigError(f"no figure format {wrong[0]!r}; choose among {', '.join(FORMATS)}")
    import matplotlib as mpl

    files = []
    for name in formats:
        target = Path(path).with_suffix(f".{name}")
        with mpl.rc_context({"svg.hashsalt": "sequencer2d"}):
            content = figure_bytes(figure, name, dpi)
        with atomic_write(target) as file:
            file.write(content)
        files.append(target)
    return files


def figure_bytes(figure: Any, name: str = "png", dpi: int = DPI) -> bytes:
    """A figure as a file of the format `name`.

    A PNG has 256 colors, a third of the size, if no pixel can be told from its true color.
    """
    from PIL import Image

    buffer = io.BytesIO()
    save(figure, buffer, format=name, dpi=dpi, bbox_inches="tight", metadata=FORMATS[name])
    if name != "png":
        return buffer.getvalue()
    full = Image.open(buffer).convert("RGB")
    # The default method spends its colors on large areas and leaves bands in a color bar.
    reduced = full.quantize(256, Image.Quantize.MAXCOVERAGE)
    differs = np.abs(np.asarray(reduced.convert("RGB"), dtype=np.int16) - np.asarray(full)).max()
    small = io.BytesIO()
    (reduced if differs <= VISIBLE else full).save(small, format="PNG", optimize=True)
    return small.getvalue()
