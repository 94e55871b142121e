"""Refuses derivatives that the operators do not have. PyTorch would take a missing derivative for zero."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from sequencer2d.errors import ImplementationError
from sequencer2d.ops.custom_operator import Operator


def has_tangent(tensors: Iterable[Any]) -> bool:
    """Whether one of the tensors carries a forward-mode derivative (`torch.func.jvp`, `torch.autograd.forward_ad`)."""
    if forward_ad._current_level < 0:
        return False
    return any(isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def transforms() -> set[str]:
    """Which of the transforms "grad", "jvp" and "vmap" are running: torch.func's, or `torch.autograd.forward_ad`'s jvp.

    A compiler traces transforms itself, so the set is empty while one is tracing.
    """
    if torch.compiler.is_compiling():
        return set()
    stack = torch._C._functorch.get_interpreter_stack() or ()
    running = {level.key().name.lower() for level in stack} & {"grad", "jvp", "vmap"}
    return running | {"jvp"} if forward_ad._current_level >= 0 else running


def autograd_kernel(operator: Operator) -> Callable[..., Any]:
    """An operator's kernel for autograd: refuses derivatives that the operator lacks, then calls it below autograd."""
    name = operator.name
    below_autograd = getattr(torch.ops.sequencer2d, name).default

    def run(*arguments: Any, **options: Any) -> Any:
        if has_tangent(arguments):
            raise ImplementationError(
                f"sequencer2d::{name} has no forward-mode derivative; use implementation='reference', whose "
                "operations PyTorch differentiates"
            )
        if not operator.differentiated and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _refuse_gradients(name, arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return below_autograd(*arguments, **options)

    return run


def _refuse_gradients(name: str, arguments: tuple[Any, ...]) -> None:
    if any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
        raise ImplementationError(
            f"sequencer2d::{name} is for inference and has no gradient; run it under torch.no_grad(), or differentiate "
            "the model that optimize() was given"
        )
