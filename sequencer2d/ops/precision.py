"""The arithmetic of an operation: the dtype under autocast, and PyTorch's switches for TF32.

PyTorch 2.9 added `fp32_precision` beside `allow_tf32`. Once a user has set the newer switch, reading the older one can
be an error. This module alone reads and sets them.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype that an operation on x computes in: autocast's if that is on. Autocast does not change float64."""
    if x.dtype is torch.float64 or not runs_under_autocast(x):
        return x.dtype
    return torch.get_autocast_dtype(x.device.type)


def runs_under_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of x. PyTorch refuses to answer for a device without autocast: meta."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def allows_tf32() -> bool:
    """Whether the user lets CUDA multiply float32 matrices in TF32, through either of PyTorch's interfaces."""
    matmul: Any = torch.backends.cuda.matmul
    try:
        # The newer switch follows the older ones. "none" stands for the default, which is no TF32.
        return bool(matmul.fp32_precision == "tf32")
    except AttributeError:
        return bool(matmul.allow_tf32)


def float32_product_precision() -> str:
    """How the kernels multiply float32: in TF32 if the user allowed it, otherwise in three TF32 products.

    Three products come to the accuracy of float32.
    """
    return "tf32" if allows_tf32() else "tf32x3"


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products, convolutions and cuDNN's recurrences inside the block only."""
    matmul = _read_older(torch.get_float32_matmul_precision)
    cudnn = _read_older(lambda: torch.backends.cudnn.allow_tf32)
    newer = [(switch, switch.fp32_precision) for switch in _newer_switches()]
    # The older interface sets the newer one as well, so that both can be read inside the block.
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    _set_newer((switch, "tf32" if allowed else "ieee") for switch, _ in newer)
    try:
        yield
    finally:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        _set_newer(newer)


def _read_older(read: Callable[[], Any]) -> Any:
    """An older switch's value; None where the newer interface has set what the older one cannot express."""
    try:
        return read()
    except RuntimeError:
        return None


def _set_newer(values: Iterable[tuple[Any, str]]) -> None:
    """Set newer switches that differ: setting one can make the older ones unreadable. "none" means no TF32, too."""
    for switch, value in values:
        if switch.fp32_precision.replace("none", "ieee") != value.replace("none", "ieee"):
            switch.fp32_precision = value


def _newer_switches() -> list[Any]:
    backends: Any = torch.backends
    found = (
        backends.cuda.matmul,
        getattr(backends.cudnn, "conv", None),
        getattr(backends.cudnn, "rnn", None),
        getattr(backends.mkldnn, "matmul", None),
    )
    return [switch for switch in found if switch is not None and hasattr(switch, "fp32_precision")]
