"""How far exported models are from PyTorch: writes `benchmarks/results/export.json`.

    python -m benchmarks.export [--formats torch,onnx,openvino,aoti] [--variants NAME,…]

Every variant with random weights (its classifier too), in every format; random images of three sizes, batches of 1 and
5, and photographs. Variants that the result file holds already are left out: the same command goes on.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, command_line, origin, write_result

NAME = "export"
SCRIPT = "benchmarks.export"
SIZES = ((224, 224), (392, 392), (288, 320))
BATCHES = (1, 5)
FORMATS = ("torch", "onnx", "openvino", "aoti")


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    from sequencer2d.models import list_models

    command = command_line(SCRIPT, argv)
    path = arguments.result or RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() and not arguments.force else []
    variants = arguments.variants or list_models()
    for format in arguments.formats:
        for variant in variants:
            if any((row["format"], row["variant"]) == (format, variant) for row in rows):
                continue
            rows.append(measure(variant, format))
            print(json.dumps(rows[-1]), flush=True)
            order = {(f, v): i for i, (f, v) in enumerate((f, v) for f in FORMATS for v in list_models())}
            rows.sort(key=lambda row: order[row["format"], row["variant"]])
            write_result({**origin(NAME, SCRIPT, command), "rows": rows}, path)
    return 0


def measure(variant: str, format: str) -> dict[str, Any]:
    """Export one variant and compare; the row, with an entry `error` where that failed."""
    from sequencer2d.errors import UserError
    from sequencer2d.export import FORMATS as ALL
    from sequencer2d.export import export_model
    from sequencer2d.models import create_model

    torch.manual_seed(0)
    model = create_model(variant).eval()
    torch.nn.init.normal_(model.head.fc.weight, std=0.02)
    row: dict[str, Any] = {"format": format, "variant": variant}
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(folder) / f"model{ALL[format].suffix}"
            exported = export_model(model, path, format, sizes=SIZES, batches=BATCHES)
        except UserError as error:
            return row | {"error": str(error)}
    for difference in exported.differences:
        height, width = difference.size
        what = f"{height}x{width}_{difference.batch}" if difference.source == "random" else "images"
        row[what] = max(row.get(what, 0.0), difference.relative)
    blocks = sum(model.config.depths)
    return row | {
        "largest": max(difference.relative for difference in exported.differences),
        "recurrent_nodes_per_block": exported.recurrent_nodes / blocks,
        "nodes": exported.nodes,
        "size_mib": round(exported.size_mib, 1),
        "seconds": round(exported.seconds, 1),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--formats", type=lambda text: text.split(","), default=list(FORMATS), metavar="A,B")
    parser.add_argument("--variants", type=lambda text: text.split(","), metavar="A,B")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    parser.add_argument("--force", action="store_true", help="begin anew")
    return parser
