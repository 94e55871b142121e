"""Registers the custom operators, so that torch.compile, torch.export and CUDA graphs see one node for each call.

They are registered with `Library.define` and `impl`, with an `autograd.Function` above them. That takes half the host
time of `custom_op` with `register_autograd`.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch

from sequencer2d.ops import (
    derivatives,
    linear_operators,
    scan_operators,
    sequence_operators,
    vendor_operators,
    vendor_sequences,
)

_LIBRARY = torch.library.Library("sequencer2d", "DEF")


def _without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator computes in the dtypes of its arguments, even if backward runs inside some other autocast."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        with torch._C._DisableAutocast():
            return function(*arguments, **options)

    return run


def _register() -> None:
    modules = (scan_operators, sequence_operators, vendor_operators, vendor_sequences, linear_operators)
    for operator in (operator for module in modules for operator in module.OPERATORS):
        _LIBRARY.define(operator.schema)
        _LIBRARY.impl(operator.name, _without_autocast(operator.cuda or operator.run), "CUDA")
        _LIBRARY.impl(operator.name, _without_autocast(operator.run), "CPU")
        _LIBRARY.impl(operator.name, derivatives.autograd_kernel(operator), "Autograd")
        torch.library.register_fake(f"sequencer2d::{operator.name}", operator.fake, lib=_LIBRARY)


_register()
