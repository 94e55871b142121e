"""What the operators do not differentiate is refused: PyTorch would take a derivative that is not there for zero."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from sequencer2d.errors import ImplementationError

# Operators that an autograd function calls, so their results need no derivative of their own.
_BEHIND_A_FUNCTION = ("scan", "scan_backward", "rnn2d_recomputing_backward", "rnn2d", "rnn2d_backward")


def has_tangent(tensors: Iterable[Any]) -> bool:
    """Whether one of the tensors carries a forward-mode derivative (`torch.func.jvp`, `torch.autograd.forward_ad`)."""
    if forward_ad._current_level < 0:
        return False
    return any(isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def transforms() -> set[str]:
    """Which of "grad", "jvp" and "vmap" are running, by torch.func or, for "jvp", `torch.autograd.forward_ad`.

    A compiler traces these itself: nothing runs while it does.
    """
    if torch.compiler.is_compiling():
        return set()
    stack = torch._C._functorch.get_interpreter_stack() or ()
    running = {level.key().name.lower() for level in stack} & {"grad", "jvp", "vmap"}
    return running | {"jvp"} if forward_ad._current_level >= 0 else running


def autograd_kernel(name: str) -> Callable[..., Any]:
    """An operator's kernel for autograd: it refuses derivatives that the operator lacks, and goes on below autograd."""
    operator = getattr(torch.ops.sequencer2d, name).default

    def run(*arguments: Any, **options: Any) -> Any:
        if has_tangent(arguments):
            raise ImplementationError(
                f"sequencer2d::{name} has no forward-mode derivative; use implementation='reference', whose "
                "operations PyTorch differentiates"
            )
        if name not in _BEHIND_A_FUNCTION and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _refuse_gradients(name, arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments, **options)

    return run


def _refuse_gradients(name: str, arguments: tuple[Any, ...]) -> None:
    if any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
        raise ImplementationError(
            f"sequencer2d::{name} is for inference and has no gradient; run it under torch.no_grad(), or differentiate "
            "the model that optimize() was given"
        )
