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
import copy
import dataclasses
import importlib.metadata
import importlib.util
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.record import RESULTS, provenance, write_result
from sequencer2d.data.config import DataConfig
from sequencer2d.data.loader import Loader, build_loader
from sequencer2d.errors import ConfigError, UserError
from sequencer2d.evaluation.benchmark import parse_subject
from sequencer2d.evaluation.benchmark.subjects import build
from sequencer2d.evaluation.benchmark.timing import free_memory, measure
from sequencer2d.evaluation.classify import ClassificationResult, evaluate
from sequencer2d.evaluation.efficiency import count_macs
from sequencer2d.evaluation.predict import input_fields
from sequencer2d.models import load_model
from sequencer2d.models.optimizing import Optimized, side_stream
from sequencer2d.nn.frozen import FusedMlp, PackedRNN2D, freeze

NAME = "fp8"
PARTS = ("products", "speed", "accuracy")
CAPABILITY = (8, 9)
ROWS, TENSOR = "rows", "tensor"
SCALES = {"": "bf16", ROWS: "fp8, a scale a row", TENSOR: "fp8, a scale a tensor"}
PRODUCTS = {
    "rnn_tokens.gates": "input product",
    "rnn_tokens.fc": "fusion",
    "mlp_channels.fc1": "MLP 1",
    "mlp_channels.fc2": "MLP 2",
}
"""The matrix products over tokens, by the end of their layer's name."""
INPUT, FUSION, FIRST, SECOND = PRODUCTS
SMALLEST = 1e-12
"""Least of the values that an activation's scale is made from: a row of zeros must not divide by zero."""
LIMIT = 0.3
"""Largest relative difference of the logits from bf16's with which an arm still counts as the same model."""
GRAPH_CALLS = 10
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to run a model.

    Attributes:
        form: "compile", the model as it is, or "optimize", with the layers of `sequencer2d.optimize`.
        scales: "" (bf16), "rows" or "tensor": what has a scale of its own.
        products: the keys of PRODUCTS that are done in fp8.
    """

    form: str
    scales: str = ""
    products: tuple[str, ...] = ()

    @property
    def said(self) -> dict[str, str]:
        """The fields that name it in a row."""
        which = "all" if len(self.products) == len(PRODUCTS) else ", ".join(PRODUCTS[key] for key in self.products)
        return {"form": self.form, "arithmetic": SCALES[self.scales], "in_fp8": which or "–"}

    def __str__(self) -> str:
        return ": ".join(value for value in self.said.values() if value != "–")


BASELINE = Arm("optimize")
ARMS = (
    Arm("compile"),
    Arm("compile", ROWS, (FUSION, FIRST, SECOND)),  # the linear layers that torchao finds by itself
    BASELINE,
    Arm("optimize", ROWS, (INPUT,)),
    Arm("optimize", ROWS, tuple(PRODUCTS)),
    Arm("optimize", TENSOR, tuple(PRODUCTS)),
)

BEGIN = time.monotonic()


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


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGIN:6.1f} s] {text}", flush=True)


# Models


class OpenRNN2D(nn.Module):
    """A `PackedRNN2D` whose input product is an `nn.Linear`: (B, H, W, C) to (B, H, W, C). The scans run as there.

    Raises:
        ConfigError: a mixer other than the paper's models have (LSTM, two axes, concatenation).
    """

    weight_hh: Tensor

    def __init__(self, packed: PackedRNN2D) -> None:
        super().__init__()
        self.scans, self.cell = packed.options["scans"], packed.options["cell"]
        if self.cell != "lstm" or packed.axes == "flatten" or packed.fusion != "concat":
            raise ConfigError("fp8 is measured for models with LSTMs along both axes and concatenated scans")
        weight = packed.weight_ih.flatten(0, 1)
        self.gates = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        self.gates.weight = nn.Parameter(weight, requires_grad=False)
        self.gates.bias = nn.Parameter((packed.bias_ih + packed.bias_hh).flatten(), requires_grad=False)
        self.register_buffer("weight_hh", packed.weight_hh)
        self.fc = packed.fc

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gates(x)
        return self.fc(torch.ops.sequencer2d.scan(gates, self.weight_hh, None, self.scans, self.cell, False)[0])


class OpenMlp(nn.Module):
    """A `FusedMlp` whose GELU, in the tanh form, stands beside its first product: (…, C) to (…, C)."""

    def __init__(self, fused: FusedMlp) -> None:
        super().__init__()
        self.fc1, self.fc2 = fused.fc1, fused.fc2

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def prepare(model: nn.Module, arm: Arm) -> nn.Module:
    """A copy of `model` in bf16, with the layers of the arm's form and its products in fp8; on the model's device."""
    network = copy.deepcopy(model).eval().requires_grad_(False)
    if arm.form == "optimize":
        network = open_layers(freeze(network, in_place=not arm.products), arm.products)
    network = network.to(torch.bfloat16, memory_format=torch.channels_last)
    if arm.scales:
        quantize(network, arm)
    return network


def open_layers(module: nn.Module, products: tuple[str, ...]) -> nn.Module:
    """Replace what hides one of `products` from torchao by layers that show it, in place."""
    for name, child in module.named_children():
        setattr(module, name, open_layers(child, products))
    if isinstance(module, PackedRNN2D) and INPUT in products:
        return OpenRNN2D(module)
    if isinstance(module, FusedMlp) and FIRST in products:
        return OpenMlp(module)
    return module


def quantize(network: nn.Module, arm: Arm) -> None:
    """Quantize the linear layers of the arm's products, in place."""
    to_fp8(network, arm.scales, lambda module, name: _product(name) in arm.products)
    found = {_product(name) for name, module in network.named_modules() if is_quantized(module)}
    if found != set(arm.products):
        # torchao passes over what it cannot take, widths that are no multiples of 16.
        left = ", ".join(PRODUCTS[key] for key in arm.products if key not in found)
        raise ConfigError(f"torchao left in bf16: {left}")


def to_fp8(network: nn.Module, scales: str, chosen: Callable[[nn.Module, str], bool] | None = None) -> None:
    """Quantize the linear layers of `network`, or those that `chosen` takes by module and name, in place."""
    from torchao.quantization import quantize_

    quantize_(network, float8_config(scales), chosen)
    for module in network.modules():
        if scales == TENSOR and is_quantized(module):
            # torchao notes one scale a tensor as one block of the tensor's size, and takes a weight of 128 × 128 for
            # one of many such blocks, another kind of product. -1 stands for the size, too.
            module.weight.block_size = [-1, -1]  # type: ignore[union-attr]


def float8_config(scales: str) -> Any:
    """torchao's configuration, with PyTorch's own product and without changes to the compiler's settings, which would
    reach the arms in bf16 as well."""
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, PerTensor
    from torchao.quantization.quantize_.common import KernelPreference

    return Float8DynamicActivationFloat8WeightConfig(
        granularity=PerRow() if scales == ROWS else PerTensor(),
        activation_value_lb=SMALLEST,
        kernel_preference=KernelPreference.TORCH,
        set_inductor_config=False,
    )


def is_quantized(module: nn.Module) -> bool:
    from torchao.quantization import Float8Tensor

    return isinstance(module, nn.Linear) and isinstance(module.weight, Float8Tensor)


def _product(name: str) -> str | None:
    """The key of PRODUCTS of a layer's full name; None for other layers."""
    key = ".".join(name.split(".")[-2:])
    return key if key in PRODUCTS else None


# Products


@dataclasses.dataclass(frozen=True)
class Shape:
    """A matrix product: `tokens` of one image × k, by k × n."""

    product: str
    tokens: int
    k: int
    n: int


def shapes(model: nn.Module, size: int) -> dict[Shape, int]:
    """The products over tokens of a model for an image of size² pixels, and how many layers have each, in order."""
    network = prepare(model, Arm("optimize", products=tuple(PRODUCTS)))
    found: dict[Shape, int] = {}

    def note(key: str) -> Callable[..., None]:
        def hook(module: nn.Linear, inputs: tuple[Tensor]) -> None:
            shape = Shape(key, inputs[0].shape[:-1].numel(), module.in_features, module.out_features)
            found[shape] = found.get(shape, 0) + 1

        return hook

    for name, module in network.named_modules():
        if key := _product(name):
            module.register_forward_pre_hook(note(key))
    device = next(network.parameters()).device
    with torch.inference_mode():
        network(torch.zeros(1, 3, size, size, device=device, dtype=torch.bfloat16))
    return found


def share_in_fp8(found: dict[Shape, int], macs: int, products: tuple[str, ...]) -> float:
    """The part (0 to 1) of a model's multiply-accumulates that lies in `products`."""
    return sum(s.tokens * s.k * s.n * layers for s, layers in found.items() if s.product in products) / macs


def product_rows(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row for each shape: milliseconds of one product in bf16 and fp8."""
    model = build(parse_subject(arguments.model), arguments.size).to(device)
    found, macs = shapes(model, arguments.size), count_macs(model, arguments.size)
    rows = []
    for shape, layers in found.items():
        row: dict[str, Any] = {"model": arguments.model, "batch": arguments.batch, "size": arguments.size}
        row |= {"product": PRODUCTS[shape.product], "layers": layers}
        row |= {"m": arguments.batch * shape.tokens, "k": shape.k, "n": shape.n}
        row["macs_share"] = share_in_fp8({shape: layers}, macs, tuple(PRODUCTS))
        try:
            row |= time_product(row["m"], shape.k, shape.n, device)
        except Exception as error:  # as in the whole model: one that fails does not take the others with it
            row["error"] = in_short(error)
        rows.append(row)
        say(", ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, (int, float))))
        if "error" in row:
            say(row["error"])
        free_memory(device)
    return rows


def time_product(m: int, k: int, n: int, device: torch.device) -> dict[str, float]:
    """Milliseconds and speed-ups: bf16, and for each kind of scales the product alone and after quantization."""
    from torchao.quantization import Float8Tensor

    x = torch.randn(m, k, device=device, dtype=torch.bfloat16)
    linear = nn.Linear(k, n, device=device, dtype=torch.bfloat16).requires_grad_(False)
    found = {"bf16_ms": graph_ms(lambda: linear(x), device)}
    for scales in (ROWS, TENSOR):
        layer = nn.Sequential(copy.deepcopy(linear))
        to_fp8(layer, scales)
        weight = layer[0].weight.t()
        xq = Float8Tensor.from_hp(x, granularity=float8_config(scales).granularity[0])
        alone = scaled_product(xq.qdata, xq.scale, weight.qdata, weight.scale, linear.bias)
        torch._dynamo.reset()  # else the shapes before would count against the limit of recompilations
        quantizing = torch.compile(layer, fullgraph=True, dynamic=False)
        found[f"{scales}_ms"] = graph_ms(alone, device)
        found[f"{scales}_quantizing_ms"] = graph_ms(lambda run=quantizing: run(x), device)
    ratios = {key.replace("_ms", "_speedup"): found["bf16_ms"] / ms for key, ms in found.items() if key != "bf16_ms"}
    return found | ratios


def scaled_product(x: Tensor, scale_x: Tensor, weight: Tensor, scale_w: Tensor, bias: Tensor) -> Callable[[], Tensor]:
    """The fp8 product (M, K) × (K, N) with its scales and bias, to bf16, as torchao calls it."""

    def run() -> Tensor:
        return torch._scaled_mm(
            x, weight, scale_a=scale_x, scale_b=scale_w, bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True
        )

    return run


def graph_ms(run: Callable[[], Tensor], device: torch.device) -> float:
    """Milliseconds of one call, of many in a CUDA graph: the GPU's time without the host's."""
    beside = side_stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.inference_mode():
        with torch.cuda.stream(beside):
            for _ in range(3):
                run()
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(GRAPH_CALLS):
                run()
    return measure(graph.replay, device, measure_s=0.1, warmup_s=0.05).step_ms / GRAPH_CALLS


# Speed


def speed_rows(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row for each arm: rate of the whole model, and how far its logits are from bf16's."""
    model = build(parse_subject(arguments.model), arguments.size).to(device)
    found, macs = shapes(model, arguments.size), count_macs(model, arguments.size)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, generator=torch.Generator().manual_seed(0))
    images = images.to(device, torch.bfloat16)
    with torch.inference_mode():
        expected = prepare(model, BASELINE)(images).float()
    rows, runs = [], []
    for arm in ARMS:
        row = {"model": arguments.model, "batch": arguments.batch, "size": arguments.size, **arm.said}
        row["macs_share"] = share_in_fp8(found, macs, arm.products)
        begin = time.monotonic()
        try:
            run = compiled(model, arm, images)
            row["relative_difference"] = float((run().float() - expected).norm() / expected.norm())
            if not row["relative_difference"] <= LIMIT:
                raise RuntimeError(f"logits differ from bf16's by {row['relative_difference']:.2g}")
        except Exception as error:
            # A library, a compiler and a driver are in play; the table says which arm failed, the others go on.
            row["error"] = in_short(error)
            run = None
        row["prepare_s"] = time.monotonic() - begin
        rows.append(row)
        runs.append(run)
        say(f"{arm}: " + row.get("error", f"ready, difference {row.get('relative_difference', 0):.3g}"))
    for row, times in zip(rows, in_turns(runs, device), strict=True):
        if times:
            row["ms"] = statistics.median(times)
            row["images_per_second"] = 1000 * arguments.batch / row["ms"]
    add_ratios(rows)
    for arm, row in zip(ARMS, rows, strict=True):
        say(f"{arm}: " + (f"{row['images_per_second']:,.0f} images/s" if "ms" in row else row["error"]))
    return rows


def in_short(error: Exception) -> str:
    """Its type and the first line of its message, at most 200 characters."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def compiled(model: nn.Module, arm: Arm, images: Tensor) -> Callable[[], Tensor]:
    """The arm as `optimize` would run it, compiled and captured for these images."""
    torch._dynamo.reset()  # else the arms before would count against the limit of recompilations
    run = Optimized(prepare(model, arm), torch.bfloat16, compile=True, graph=images.is_cuda)
    run(images)
    return lambda: run(images)


def in_turns(runs: list[Callable[[], Tensor] | None], device: torch.device) -> list[list[float]]:
    """Milliseconds of a step in each round, for each run; what the device does falls on all alike."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, found in zip(runs, times, strict=True):
            if run is not None:
                found.append(measure(run, device, measure_s=0.3, warmup_s=0.1).step_ms)
    return times


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add rates over those of bf16 in the same form, and over those of `optimize` in bf16."""
    for row in rows:
        for key, form in (("over_bf16", row["form"]), ("over_optimize", BASELINE.form)):
            base = next((r for r in rows if r["form"] == form and r["arithmetic"] == SCALES[""] and "ms" in r), None)
            if base and "ms" in row:
                row[key] = base["ms"] / row["ms"]


# Accuracy


class Kept:
    """A loader whose batches were read once, for several models."""

    def __init__(self, loader: Loader) -> None:
        self.batches = list(loader)
        self.normalize, self.class_names, self.broken = loader.normalize, loader.class_names, loader.broken

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.batches)


class Recorder(nn.Module):
    """A model that keeps its logits, in fp32 on the CPU."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.logits: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images).float()
        self.logits.append(logits.cpu())
        return logits


def accuracy_rows(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row for each checkpoint and arm, after one for fp32: top-1, and how far the logits are from fp32's."""
    rows = []
    for checkpoint, data in zip(arguments.checkpoint, arguments.data, strict=True):
        model: Any = load_model(checkpoint)
        place = {"source": "digits"} if data == "digits" else {"root": data}
        config = DataConfig(**input_fields(model), **place, batch_size=arguments.batch)
        loader = Kept(build_loader(config, config.val_split, train=False, rank=0, world_size=1))
        say(f"{checkpoint}: {model.variant}, images read")
        rows += checkpoint_rows(model.to(device), loader, device)
    return rows


def checkpoint_rows(model: Any, loader: Kept, device: torch.device) -> list[dict[str, Any]]:
    """The rows of one checkpoint."""
    exact, bf16 = None, None
    rows = []
    for arm in (None, *ARMS):
        row = {"model": model.variant, "classes": len(loader.class_names)}
        row |= {"form": "eager", "arithmetic": "fp32", "in_fp8": "–"} if arm is None else arm.said
        rows.append(row)
        try:
            result, logits = judge(model, arm, loader, device)
        except Exception as error:
            if arm is None or arm == BASELINE:  # what the others are compared with
                raise
            row["error"] = in_short(error)
            say(f"{arm}: {row['error']}")
            continue
        exact = logits if exact is None else exact
        row |= {"images": result.count, "top1_percent": result.top1, "cross_entropy": result.cross_entropy}
        row["largest_difference"] = float((logits - exact).abs().max() / exact.abs().max())
        row["relative_difference"] = float((logits - exact).norm() / exact.norm())
        if arm == BASELINE:
            bf16 = row
        say(f"{arm or 'fp32'}: top-1 {result.top1:.2f} %, largest difference {row['largest_difference']:.2g}")
    for row in rows:
        if "top1_percent" in row:
            row["top1_change_points"] = row["top1_percent"] - bf16["top1_percent"]  # type: ignore[index]
    return rows


def judge(model: nn.Module, arm: Arm | None, loader: Kept, device: torch.device) -> tuple[ClassificationResult, Tensor]:
    """What the arm (None: the model as it is, in fp32) makes of the images, and its logits (N, classes), on the CPU."""
    network = model if arm is None else Optimized(prepare(model, arm), torch.bfloat16, compile=False, graph=False)
    recorder = Recorder(network)
    result = evaluate(recorder, loader, device=device)  # type: ignore[arg-type]
    return result, torch.cat(recorder.logits)


if __name__ == "__main__":
    sys.exit(main())
