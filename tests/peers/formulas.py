"""Modules against their formulas, written as loops in float64."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def in_play(module: nn.Module) -> nn.Module:
    """The module in float64, with every parameter large enough to show."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def assert_follows_formula(
    module: nn.Module, formula: Callable[..., Tensor], shape: tuple[int, ...], arguments: tuple[Any, ...] = ()
) -> None:
    """The outputs of a module for two random inputs, and all gradients, are those of `formula(module, input)`."""
    module = in_play(module)
    x = torch.randn(2, *shape, dtype=torch.float64, requires_grad=True)
    out = module(x, *arguments)
    expected = torch.stack([formula(module, one, *arguments) for one in x])
    torch.testing.assert_close(out, expected)
    seed, inputs = torch.randn_like(out), (x, *module.parameters())
    found = torch.autograd.grad((out * seed).sum(), inputs)
    right = torch.autograd.grad((expected * seed).sum(), inputs)
    for one, two in zip(found, right, strict=True):
        torch.testing.assert_close(one, two)
