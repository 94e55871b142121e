"""What int8 costs and gains on a CPU: writes `benchmarks/results/int8.json`.

    python -m benchmarks.int8 runs/cifar10 /images/cifar10 [--split test]

Exports a trained checkpoint to ONNX in fp32 and in int8 (the recurrences in fp32, and once quantized as well), and
evaluates all of them in ONNX Runtime on the same images; rates are of batches of 1 and 8, all forms timed in turns, by
the process's CPU time with one thread.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import command_line, origin, write_result

NAME = "int8"
SCRIPT = "benchmarks.int8"
BATCHES = (1, 8)
ROUNDS = 15
TITLES = {"fp32": "fp32", "int8": "int8, recurrences in fp32", "int8-recurrences": "int8, recurrences too"}


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = export(arguments.checkpoint, Path(folder))
        rows = [accuracy(name, path, arguments) for name, path in artifacts.items()]
        for row, rates in zip(rows, time_all(list(artifacts.values())), strict=True):
            row.update(rates)
    for row in rows:
        row["top1_change_points"] = row["top1_percent"] - rows[0]["top1_percent"]
        for batch in BATCHES:
            row[f"speedup_{batch}"] = rows[0][f"milliseconds_{batch}"] / row[f"milliseconds_{batch}"]
        print(row, flush=True)
    path = write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": rows}, arguments.result)
    print(f"written to {path}")
    return 0


def export(checkpoint: str, folder: Path) -> dict[str, Path]:
    """The ONNX files by the name of their arithmetic."""
    from sequencer2d.export import export_model
    from sequencer2d.export.int8 import quantize_file
    from sequencer2d.models import load_model

    model = load_model(checkpoint)
    paths = {name: folder / f"{name}.onnx" for name in TITLES}
    export_model(model, paths["fp32"], "onnx")
    export_model(model, paths["int8"], "onnx", precision="int8")
    shutil.copy(paths["fp32"], paths["int8-recurrences"])
    quantize_file(paths["int8-recurrences"], recurrences=True)
    return paths


def accuracy(name: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The row of one artifact: top-1 over the whole split."""
    from sequencer2d.data.config import DataConfig
    from sequencer2d.data.loader import build_loader
    from sequencer2d.evaluation.loop import evaluate
    from sequencer2d.evaluation.subject import input_fields
    from sequencer2d.export import load_artifact

    artifact: Any = load_artifact(path)
    place = {"source": "digits"} if arguments.data == "digits" else {"root": arguments.data}
    config = DataConfig(**input_fields(artifact), **place, val_split=arguments.split, batch_size=100, workers=0)
    loader = build_loader(config, config.val_split, train=False, rank=0, world_size=1)
    result = evaluate(artifact, loader, device="cpu")
    return {
        "precision": TITLES[name],
        "top1_percent": result.top1,
        "cross_entropy": result.cross_entropy,
        "images": result.count,
        "size_mib": round(path.stat().st_size / 2**20, 2),
    }


def time_all(paths: list[Path]) -> list[dict[str, float]]:
    """Milliseconds of one batch, of each artifact and batch size: the fastest of rounds taken in turns."""
    from sequencer2d.export import load_artifact

    artifacts = [load_artifact(path) for path in paths]
    size = artifacts[0].pretrained_cfg["input_size"]
    found: list[dict[str, float]] = [{} for _ in artifacts]
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for batch in BATCHES:
        images = torch.randn(batch, *size, generator=torch.Generator().manual_seed(0))
        for _ in range(ROUNDS):
            for row, artifact in zip(found, artifacts, strict=True):
                artifact(images)
                start = clock()
                artifact(images)
                elapsed = 1000 * (clock() - start)
                row[f"milliseconds_{batch}"] = min(elapsed, row.get(f"milliseconds_{batch}", elapsed))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="a run's folder or a checkpoint file")
    parser.add_argument("data", help="folder with <split>/<class>/*, or digits")
    parser.add_argument("--split", default="test", metavar="NAME", help="default: test")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1, timed by CPU time")
    parser.add_argument("--result", type=Path, metavar="FILE", help="default: benchmarks/results/int8.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
