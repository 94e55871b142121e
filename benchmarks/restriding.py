"""What another stride of the stem costs a trained classifier, before and after fine-tuning: `results/restriding.json`.

    python -m benchmarks.restriding runs/tiny56 --strides 8 4 --epochs 0
    python -m benchmarks.restriding runs/tiny56 --strides 8 --epochs 1            adds rows

`restride` changes the stride of a run's model, which is then measured on the run's validation images, at the size of
the run and at one that is larger in proportion, where objects cover as many tokens as before. Fine-tuning follows the
run's own recipe with a tenth of its learning rate, at each of the two sizes. The unchanged model is measured at the
same sizes and fine-tuned likewise, since more training helps it too. Sides that no stride divides are padded with the
mean color, as below a decoder.

The committed result's checkpoint saw 20 classes of Tiny-ImageNet (every tenth in the order of their names; the first
400 training images of each, tested on the other 100 and the validation images) in 56×56 pixels. One CPU core trained
it in half an hour:

    sequencer2d train tiny_imagenet data.root=/images/tiny20 data.val_split=test model.name=sequencer2d_n \\
        'model.overrides={"depths": [1, 1, 3, 1], "dims": [64, 128, 128, 128], "hidden_dims": [16, 32, 32, 32]}' \\
        data.image_size=56 data.batch_size=64 data.batch_policy= data.mixup=0 data.cutmix=0 data.workers=0 \\
        run.epochs=16 run.compile=false run.device=cpu optimizer.lr=1.5e-3 optimizer.lr_reference_batch=none \\
        precision=fp32
"""

import argparse
import dataclasses
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.columns import Column, fixed
from benchmarks.record import RESULTS, command_line, origin, write_result
from sequencer2d.data.loader import build_loader
from sequencer2d.evaluation.loop import evaluate
from sequencer2d.files import read_json
from sequencer2d.models import load_model, restride, save_weights
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.loop import train
from sequencer2d.training.runfiles import read_config

NAME, SCRIPT = "restriding", "benchmarks.restriding"
COLUMNS = (
    Column("stride", "stride of the stem"),
    Column("image_size", "side of the images, pixels"),
    Column("tokens", "tokens a side, padding included"),
    Column("epochs", "epochs of fine-tuning"),
    Column("top1_percent", "top-1, %", fixed(1)),
    Column("error_points", "standard error, points", fixed(1)),
)
KEY = ("stride", "image_size", "epochs")

Row = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    config = read_config(arguments.run)
    own = load_model(arguments.run).config.patch_sizes[0]
    size = config.data.size[0]
    path = arguments.result or RESULTS / f"{NAME}.json"
    rows: list[Row] = read_json(path)["rows"] if path.exists() else []
    header = origin(NAME, SCRIPT, command_line(SCRIPT, argv))
    for stride in arguments.strides:
        cells = itertools.product((own, stride), (size, larger(size, stride, own)), sorted({0, arguments.epochs}))
        for cell in cells:
            if any(tuple(row[key] for key in KEY) == cell for row in rows):
                continue
            row = measure(arguments, config, *cell)
            rows = sorted([*rows, row], key=lambda row: (row["stride"] != own, *(row[key] for key in KEY)))
            write_result({**header, "rows": rows}, path)
            print(row, flush=True)
    return 0


def larger(size: int, stride: int, own: int) -> int:
    """The side at which the stem of `stride` sees as many tokens as the own one does at `size`."""
    return round(size * stride / own)


def measure(arguments: argparse.Namespace, config: TrainConfig, patch: int, side: int, epochs: int) -> Row:
    """The row of a stride, a size, and a number of epochs of fine-tuning at that size."""
    folder = arguments.output / f"stride{patch}-{side}"
    weights = folder / "start.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(arguments.run)
    restride(model, patch)
    save_weights(model, weights)
    data = dataclasses.replace(config.data, image_size=side)
    loader = build_loader(data, data.val_split, train=False)
    if epochs:
        top1 = _tuned(config, data, patch, weights, folder / f"epochs{epochs}", epochs)
    else:
        top1 = evaluate(load_model(weights, pad="zeros"), loader, device=arguments.device).top1
    count, total = len(loader.source), load_model(weights).config.total_stride
    return {
        "stride": patch,
        "image_size": side,
        "tokens": math.ceil(side / total) * total // patch,
        "epochs": epochs,
        "top1_percent": top1,
        "error_points": math.sqrt(top1 * (100 - top1) / count),
        "images": count,
    }


def _tuned(config: TrainConfig, data: Any, patch: int, weights: Path, folder: Path, epochs: int) -> float:
    """Top-1 in percent after fine-tuning by the run's recipe with a tenth of its learning rate."""
    sizes = config.model.overrides.get("patch_sizes") or load_model(weights).config.patch_sizes
    overrides = {**config.model.overrides, "patch_sizes": (patch, *sizes[1:]), "pad": "zeros"}
    tuned = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, checkpoint=str(weights), pretrained=False, overrides=overrides),
        data=data,
        optimizer=dataclasses.replace(config.optimizer, lr=config.optimizer.lr / 10),
        schedule=dataclasses.replace(config.schedule, warmup_epochs=0, cooldown_epochs=0),
        # An average over so few steps would be mostly of the weights from before.
        regularization=dataclasses.replace(config.regularization, ema_decay=None),
        run=dataclasses.replace(config.run, output=str(folder), epochs=epochs, eval_interval=epochs, tensorboard=False),
    )
    return float(train(tuned)["final"]["top1"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run that trained a classifier of ours")
    parser.add_argument("--strides", nargs="+", type=int, default=[8], metavar="N", help="of the stem (default: 8)")
    parser.add_argument("--epochs", type=int, default=1, metavar="N", help="of fine-tuning; 0: none (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("runs/restriding"), metavar="FOLDER", help="of the weights")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="default: cpu")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
