"""What `pad="crop"` and `pad="zeros"` cost at sizes around multiples of the stride: writes `results/pad.json`.

    python -m benchmarks.pad runs/cifar10 /images/cifar10 --sizes 53-59,67-73 [--split test]

One trained checkpoint is evaluated both ways on the same images, each resized to every size. At multiples of the stride
both are the same model. The difference is counted by image, so its standard error is that of a paired comparison.

The committed result's checkpoint has a stride of 14 pixels and saw 56×56 pixels, 4 × 14; one CPU core trained it in 40
minutes to 63.6 % on CIFAR-10:

    sequencer2d train cifar10 data.root=/images/cifar10 model.drop_path_rate=0 model.name=sequencer2d_n \\
        'model.overrides={"depths": [1, 1, 2, 1], "dims": [64, 128, 128, 128], "hidden_dims": [16, 32, 32, 32]}' \\
        data.image_size=56 data.crop=random-resized data.crop_scale=[0.35,1.0] data.batch_policy= data.erasing=0 \\
        data.mixup=0 data.cutmix=0 data.batch_size=128 data.workers=0 data.cache=false run.epochs=8 \\
        schedule.warmup_epochs=1 schedule.cooldown_epochs=0 regularization.label_smoothing=0 \\
        regularization.ema_decay=0 precision=fp32 run.compile=false run.device=cpu optimizer.lr=2e-3
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import command_line, origin, write_result

NAME, SCRIPT = "pad", "benchmarks.pad"
PADS = ("crop", "zeros")


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = []
    for size in arguments.sizes:
        rows.append(measure(arguments.checkpoint, arguments.data, arguments.split, size))
        print(rows[-1], flush=True)
    path = write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": rows}, arguments.result)
    print(f"written to {path}")
    return 0


def measure(checkpoint: str, data: str, split: str, size: int) -> dict[str, Any]:
    """The row of one size: both ways on every image of the split, resized to `size`×`size` pixels."""
    from sequencer2d.data.opening import open_source
    from sequencer2d.evaluation.outcomes import logits_of, outcomes_of
    from sequencer2d.evaluation.pixels import match_classes, read_batches
    from sequencer2d.evaluation.subject import subject_of
    from sequencer2d.models import load_model

    subjects = {pad: subject_of(load_model(checkpoint, pad=pad), name=pad).adapted(size) for pad in PADS}
    source = open_source("folder", split, root=data)
    classes = match_classes(subjects["crop"], source)
    correct: dict[str, list[np.ndarray]] = {pad: [] for pad in PADS}
    losses: dict[str, list[np.ndarray]] = {pad: [] for pad in PADS}
    for batch in read_batches(source, subjects["crop"].data):
        for pad, subject in subjects.items():
            outcomes = outcomes_of(logits_of(subject, batch.pixels), classes[batch.targets])
            correct[pad].append(outcomes.predictions == outcomes.targets)
            losses[pad].append(outcomes.losses)
    right = {pad: np.concatenate(parts).astype(float) for pad, parts in correct.items()}
    gain = right["zeros"] - right["crop"]
    stride = subjects["crop"].model.config.total_stride  # type: ignore[union-attr]
    return {
        "size_pixels": size,
        "over": (size + stride // 2) % stride - stride // 2,
        **{f"{pad}_top1_percent": 100 * float(right[pad].mean()) for pad in PADS},
        "gain_points": 100 * float(gain.mean()),
        "gain_error_points": 100 * float(gain.std()) / math.sqrt(len(gain)),
        **{f"{pad}_cross_entropy": float(np.concatenate(losses[pad]).mean()) for pad in PADS},
        "images": len(gain),
    }


def _sizes(text: str) -> list[int]:
    """ "53-59,70" as the numbers that it names."""
    sizes = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        sizes += range(int(first), int(last or first) + 1)
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", help="a run's folder or a checkpoint file of ours")
    parser.add_argument("data", help="folder with <split>/<class>/*")
    parser.add_argument("--sizes", type=_sizes, required=True, metavar="FIRST-LAST,…", help="sides in pixels")
    parser.add_argument("--split", default="test", metavar="NAME", help="default: test")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
