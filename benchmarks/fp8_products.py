"""The part products of `benchmarks/fp8.py`: which matrix products a model has, and the time of each in bf16 and fp8."""

import argparse
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fp8_models import (
    PRODUCTS,
    ROWS,
    TENSOR,
    Arm,
    float8_config,
    in_short,
    prepare,
    product_of,
    say,
    to_fp8,
)
from sequencer2d.benchmark import parse_contender
from sequencer2d.benchmark.contenders import build
from sequencer2d.benchmark.cost import count_macs
from sequencer2d.benchmark.timing import free_memory, measure
from sequencer2d.models.graphs import side_stream

GRAPH_CALLS = 10


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
        if key := product_of(name):
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
    model = build(parse_contender(arguments.model), arguments.size).to(device)
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
