"""The models that `benchmarks/fp8.py` measures: its arms, and the layers and quantization they need."""

import copy
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import ConfigError
from sequencer2d.nn.freezing import freeze
from sequencer2d.nn.frozen import FusedMlp, PackedRNN2D

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
BEGIN = time.monotonic()


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
        self.gates.bias = nn.Parameter(packed.bias, requires_grad=False)
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
    to_fp8(network, arm.scales, lambda module, name: product_of(name) in arm.products)
    found = {product_of(name) for name, module in network.named_modules() if is_quantized(module)}
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
    """torchao's configuration, with PyTorch's own product.

    It leaves the compiler's settings alone: changes would reach the arms in bf16 as well.
    """
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


def product_of(name: str) -> str | None:
    """The key of PRODUCTS of a layer's full name; None for other layers."""
    key = ".".join(name.split(".")[-2:])
    return key if key in PRODUCTS else None


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGIN:6.1f} s] {text}", flush=True)


def in_short(error: Exception) -> str:
    """Its type and the first line of its message, at most 200 characters."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
