"""CycleMLP's shift by slices beside the authors' deformable convolution: writes `results/cycle_shift.json`.

    python -m benchmarks.cycle_shift

Both layers get the same weights and maps, of the sizes of CycleMLP-B2's four stages for images of 224 pixels. They are
timed in turns, by the process's CPU time with one thread, and the fastest round counts. Their outputs are compared
first.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from benchmarks.columns import Column, fixed
from benchmarks.record import command_line, origin, write_result
from sequencer2d.peers.cyclemlp import WIDTH, CycleFC

NAME, SCRIPT = "cycle_shift", "benchmarks.cycle_shift"
STAGES = ((56, 64), (28, 128), (14, 320), (7, 512))
ROUNDS = 15
CYCLE_SHIFT_COLUMNS = (
    Column("side", "tokens", lambda side: f"{side}×{side}"),
    Column("channels", "channels"),
    Column("deformable_forward_ms", "deformable: forward, ms", fixed(1)),
    Column("slices_forward_ms", "slices: forward, ms", fixed(1)),
    Column("forward_speedup", "faster by", lambda ratio: f"{ratio:.0f}×"),
    Column("deformable_training_ms", "deformable: forward and backward, ms", fixed(1)),
    Column("slices_training_ms", "slices: forward and backward, ms", fixed(1)),
    Column("training_speedup", "faster by", lambda ratio: f"{ratio:.0f}×"),
)


def deformable(layer: CycleFC, x_BHWC: Tensor) -> Tensor:
    """What the authors' layer computes, from and to maps (B, H, W, C)."""
    batch, height, width, _ = x_BHWC.shape
    offset = layer.offset.expand(batch, -1, height, width)
    return deform_conv2d(x_BHWC.permute(0, 3, 1, 2), offset, layer.weight, layer.bias).permute(0, 2, 3, 1)


def slices(layer: CycleFC, x_BHWC: Tensor) -> Tensor:
    """What this package's layer computes."""
    return layer(x_BHWC)


FORMS: dict[str, Callable[[CycleFC, Tensor], Tensor]] = {"deformable": deformable, "slices": slices}


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for side, channels in STAGES:
        rows.append(measure(side, channels, arguments.batch))
        print(rows[-1], flush=True)
    path = write_result({**origin(NAME, SCRIPT, command_line(SCRIPT, argv)), "rows": rows}, arguments.result)
    print(f"written to {path}")
    return 0


def measure(side: int, channels: int, batch: int) -> dict[str, Any]:
    """The row of one stage."""
    torch.manual_seed(0)
    layer, x = CycleFC(channels, WIDTH), torch.randn(batch, side, side, channels, requires_grad=True)
    torch.testing.assert_close(slices(layer, x), deformable(layer, x))
    row: dict[str, Any] = {"side": side, "channels": channels, "batch": batch}
    for _ in range(ROUNDS):
        for form, run in FORMS.items():
            for what, elapsed in (("forward", _forward(layer, x, run)), ("training", _training(layer, x, run))):
                key = f"{form}_{what}_ms"
                row[key] = min(elapsed, row.get(key, elapsed))
    for what in ("forward", "training"):
        row[f"{what}_speedup"] = row[f"deformable_{what}_ms"] / row[f"slices_{what}_ms"]
    return row


def _forward(layer: CycleFC, x: Tensor, run: Callable[[CycleFC, Tensor], Tensor]) -> float:
    with torch.no_grad():
        start = time.process_time()
        run(layer, x)
        return 1000 * (time.process_time() - start)


def _training(layer: CycleFC, x: Tensor, run: Callable[[CycleFC, Tensor], Tensor]) -> float:
    x.grad, layer.weight.grad, layer.bias.grad = None, None, None
    start = time.process_time()
    run(layer, x).sum().backward()
    return 1000 * (time.process_time() - start)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images (default: 4)")
    parser.add_argument("--result", type=Path, metavar="FILE", help=f"default: benchmarks/results/{NAME}.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
