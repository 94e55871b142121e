"""`sequencer2d bench --artifacts`: exported models, timed on the CPU."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

from sequencer2d import terminal
from sequencer2d.cli.common import console
from sequencer2d.terminal import plain_table

TEXT_COLUMNS = ("artifact", "format", "precision", "size, pixels")
COLUMNS = ("artifact", "format", "precision", "batch", "size, pixels", "images/s", "latency, ms")


def time_artifacts(arguments: argparse.Namespace) -> int:
    """Time exported models on random images: batch and size as given, otherwise one image of the model's own size."""
    from sequencer2d.export import load_artifact
    from sequencer2d.export.timing import time_artifact

    rows = []
    for path in arguments.artifacts:
        artifact = load_artifact(path, trust=arguments.trust)
        height, width = artifact.pretrained_cfg["input_size"][1:]
        sizes = [(size, size) for size in arguments.size] if arguments.size else [(height, width)]
        for size, batch in itertools.product(sizes, arguments.batch or [1]):
            rows.append(time_artifact(artifact, batch, size, measure_s=arguments.seconds))
    if arguments.json:
        terminal.write_json(rows)
    else:
        console().print(_table(rows))
    return 0


def _table(rows: list[dict[str, Any]]) -> Any:
    table = plain_table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in TEXT_COLUMNS else "right")
    for row in rows:
        height, width = row["size"]
        numbers = (f"{row['images_per_s']:,.1f}", f"{row['latency_ms']:,.3f}")
        table.add_row(row["path"], row["format"], row["precision"], str(row["batch"]), f"{height}×{width}", *numbers)
    return table
