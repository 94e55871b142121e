"""What a model costs: parameters and multiply-accumulates, recurrences included."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module, *, trainable_only: bool = False) -> int:
    """Numbers in the model's parameters, each counted once; buffers are not parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def count_macs(model: nn.Module, size: int | tuple[int, int] = (224, 224), in_chans: int = 3) -> int:
    """Multiply-accumulates of the model's forward pass on one image.

    Convolutions and matrix products are counted, those inside recurrences (nn.LSTM, nn.GRU, nn.RNN and ours) and
    attention included; biases, norms and activations are not. The usual counters skip recurrences: they say 4.96 G
    for `sequencer2d_s`, which has 8.33 G. The FLOPs of the paper's Table 1, 8.40 G, are multiply-accumulates too, with
    element-wise work added.

    Args:
        model: any module that takes (B, C, H, W); on any device, meta included. It is neither run nor changed.
        size: pixels of a side, or (height, width).
        in_chans: C.
    """
    height, width = (size, size) if isinstance(size, int) else size
    counter = FlopCounterMode(display=False)
    recurrences = _CountRecurrences()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        shadow = _without_numbers(model).eval()
        images = torch.empty(1, in_chans, height, width)
        with counter, recurrences:
            shadow(images)
    return counter.get_total_flops() // 2 + recurrences.macs


class _CountRecurrences(TorchFunctionMode):
    """Counts torch.lstm, torch.gru and torch.rnn_*, and answers with empty tensors of their results' shapes.

    Each step multiplies each token with each weight matrix of each layer and direction once.
    """

    NAMES = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") not in self.NAMES or len(args) != 9 or not isinstance(args[2], (list, tuple)):
            return func(*args, **(kwargs or {}))
        x, state, weights, bidirectional = args[0], args[1], args[2], args[7]
        tokens = x.numel() // x.shape[-1]
        self.macs += tokens * sum(weight.numel() for weight in weights if weight.ndim == 2)
        states = (state,) if isinstance(state, Tensor) else tuple(state)
        return x.new_empty(*x.shape[:-1], states[0].shape[-1] * (2 if bidirectional else 1)), *states


def _without_numbers(model: nn.Module) -> nn.Module:
    """A copy whose parameters and buffers have shapes only; to be called in a `FakeTensorMode`.

    They are said to be on the CPU: there our recurrences go through torch's own functions, which are counted as a
    whole, while on the meta device they would be thousands of small steps.
    """
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        empty = torch.empty(tensor.shape, dtype=dtype, device="cpu")
        memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    shadow = copy.deepcopy(model, memo)
    set_implementation = getattr(shadow, "set_implementation", None)
    if set_implementation is not None:
        set_implementation("auto")
    return shadow
