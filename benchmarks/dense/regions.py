"""torch.compile by regions: a backbone's blocks and the decoder, so that a model of any size compiles in seconds.

Equal blocks share their code. It is compiled for the exact size of the maps and for any batch. What lies between the
regions runs as it is.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_BLOCKS = ("Bottleneck", "PyramidLevel")
_DECODERS = ("SemanticFPN",)
FREE_SIZES = (0, 2, 3)
"""Axes of a decoder's maps for which its code is free: it is the largest region, and compiled once for all sizes."""

_code: dict[Any, Callable[..., Any]] = {}


def compile_regions(model: nn.Module) -> int:
    """Compile the blocks, the levels of a pyramid and the decoder in place; returns how many regions there are."""
    # The free axes are named above. The compiler would also make any axis dynamic that differs between two calls.
    torch._dynamo.config.automatic_dynamic_shapes = False
    regions = [module for module in model.modules() if _is_region(module)]
    for region in regions:
        # `nn.Module.compile` sets this as well. Copies of a module lack it.
        region._compiled_call_impl = functools.partial(_run, region)
    return len(regions)


def compile_decoder(model: nn.Module) -> None:
    """Compile the decoder alone, in place."""
    for module in model.modules():
        if type(module).__name__ in _DECODERS:
            module._compiled_call_impl = functools.partial(_run, module)


def _is_region(module: nn.Module) -> bool:
    name = type(module).__name__
    return name.endswith("Block") or name in (*_BLOCKS, *_DECODERS)


def _run(module: nn.Module, *inputs: Any) -> Any:
    decoder = type(module).__name__ in _DECODERS
    tensors = [x for x in (inputs[0] if decoder else inputs) if isinstance(x, Tensor)]
    for x in tensors:
        for axis in FREE_SIZES if decoder else (0,):
            torch._dynamo.maybe_mark_dynamic(x, axis)
    shapes = tuple(x.shape[1:] for x in tensors)
    states = tuple((name, value.shape) for name, value in module.state_dict().items())
    numbers = tuple((name, value) for name, value in vars(module).items() if isinstance(value, int | tuple))
    key = (type(module), states, numbers, None if decoder else shapes, tensors[0].dtype, torch.is_grad_enabled())
    if key not in _code:
        # The compiler limits the number of compilations for each code object.
        code = _call.__code__.replace()  # type: ignore[attr-defined]
        _code[key] = torch.compile(types.FunctionType(code, globals(), "region"))
    return _code[key](module, *inputs)


def _call(module: nn.Module, *inputs: Any) -> Any:
    # Not `module(…)`, which is what is being compiled.
    return module._call_impl(*inputs)
