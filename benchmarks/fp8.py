"""What fp8 matrix products gain in inference on a GPU, and what they cost: writes `benchmarks/results/fp8*.json`.

    python -m benchmarks.fp8                                      products and whole model, random weights
    python -m benchmarks.fp8 --checkpoint runs/tiny_imagenet --data /images/tiny     and the accuracy of a trained one

Needs torchao (`pip install torchao`, not among this package's dependencies) and a GPU with fp8 units (Ada, Hopper or
newer). Weights are quantized once, activations as they come, both to e4m3 with a scale a row or one a tensor
(torchao's `Float8DynamicActivationFloat8WeightConfig`); stem, downsampling, recurrences and classifier stay in bf16.

Three parts, each a result file, written as soon as it is measured:

products  each matrix product of the blocks alone, bf16 against fp8, with and without quantizing the activation
speed     the whole model: each arm as `sequencer2d.optimize` runs a model, compiled and in a CUDA graph, in turns
accuracy  top-1 of the same arms on a trained checkpoint's images (in eager mode), after fp32 and bf16

`optimize` packs the input product of all scans as a buffer and the first product of the MLP with its GELU, where
torchao cannot reach them. Here they are `nn.Linear` again; the GELU of an MLP in fp8, in its tanh form too, is left to
the compiler, as no fp8 product takes it into its epilogue.
"""

import argparse
import importlib.metadata
import importlib.util
import shlex
import sys
from pathlib import Path

import torch

from benchmarks.fp8_model_rows import accuracy_rows, speed_rows
from benchmarks.fp8_models import say
from benchmarks.fp8_products import product_rows
from benchmarks.record import RESULTS, provenance, write_result
from sequencer2d.errors import UserError

NAME = "fp8"
PARTS = ("products", "speed", "accuracy")
CAPABILITY = (8, 9)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    command = shlex.join(["python", "-m", "benchmarks.fp8", *(sys.argv[1:] if argv is None else argv)])
    reason = refusal()
    if reason:
        raise SystemExit(f"benchmarks/fp8.py: {reason}")
    device = torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = False  # fp32 is what the others are compared with
    try:
        for part in arguments.parts:
            rows = {"products": product_rows, "speed": speed_rows, "accuracy": accuracy_rows}[part](arguments, device)
            name = NAME if part == "speed" else f"{NAME}-{part}"
            result = provenance(name)
            result["versions"]["torchao"] = importlib.metadata.version("torchao")
            path = write_result({**result, "command": command, "rows": rows}, arguments.output / f"{name}.json")
            say(f"written to {path}")
    except UserError as error:
        raise SystemExit(f"benchmarks/fp8.py: {error}") from error
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="PART", help="default: all there is input for")
    parser.add_argument("--model", default="sequencer2d_s", help="of products and speed (default: sequencer2d_s)")
    parser.add_argument("--batch", type=int, default=256, metavar="IMAGES", help="default: 256")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="default: 224")
    parser.add_argument("--checkpoint", action="append", default=[], metavar="FILE", help="or a run's folder; repeat")
    parser.add_argument("--data", action="append", default=[], metavar="FOLDER", help="with val or test; or digits")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/results")
    arguments = parser.parse_args(argv)
    if len(arguments.checkpoint) != len(arguments.data):
        parser.error("give each --checkpoint its --data, in the same order")
    if arguments.parts is None:
        arguments.parts = [part for part in PARTS if part != "accuracy" or arguments.checkpoint]
    if "accuracy" in arguments.parts and not arguments.checkpoint:
        parser.error("the part accuracy needs --checkpoint and --data")
    return arguments


def refusal() -> str | None:
    """Why nothing can be measured here; None if it can."""
    if importlib.util.find_spec("torchao") is None:
        return "torchao is not installed: pip install torchao (0.18 is made for torch 2.11 and newer)"
    if not torch.cuda.is_available():
        return "it needs a CUDA device with fp8 units, there is none"
    found = torch.cuda.get_device_capability()
    if found < CAPABILITY:
        name = torch.cuda.get_device_name()
        return f"{name} has compute capability {found[0]}.{found[1]}; fp8 products need 8.9 (Ada, Hopper or newer)"
    return None


if __name__ == "__main__":
    sys.exit(main())
