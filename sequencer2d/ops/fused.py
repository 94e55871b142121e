"""The fused recurrence: not built yet."""

from collections.abc import Sequence

from torch import Tensor


def refusal(x: Tensor, hidden: int, scans: Sequence[int], cell: str) -> str | None:
    """Why the kernels cannot take the arguments; None if they can."""
    return "not built yet"


def rnn2d_fused(*args: Tensor | None, scans: Sequence[int], cell: str, recompute: bool) -> Tensor:
    """Placeholder until the kernels land."""
    raise NotImplementedError
