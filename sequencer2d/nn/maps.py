"""Feature maps of backbones: which stages to return, and in which layout."""

import operator
from collections.abc import Iterable, Sequence

from torch import Tensor

from sequencer2d.errors import ConfigError


def take_indices(count: int, indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Resolve a choice among `count` stages: None is all, an integer n the last n, negative ones count from the end.

    Integers of numpy and torch are taken too.

    Raises:
        ConfigError: an index that no stage has or that is no integer, or a stage that stands twice.
    """
    if indices is None:
        return tuple(range(count))
    try:
        if isinstance(indices, Iterable):
            chosen = tuple(_from_start(index, count) for index in indices)
            valid = bool(chosen) and all(0 <= index < count for index in chosen)
        else:
            last = _whole(indices)
            chosen = tuple(range(count - last, count))
            valid = 1 <= last <= count
    except TypeError:
        raise ConfigError(f"indices={indices!r}: expected numbers of stages, or how many of the last ones") from None
    if not valid:
        hint = "" if isinstance(indices, Iterable) else "; a number alone is how many of the last ones"
        raise ConfigError(f"indices={indices!r}: the model has stages 0 to {count - 1} (or −{count} to −1){hint}")
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"indices={indices!r}: a stage stands twice; name each once")
    return chosen


def _from_start(index: int, count: int) -> int:
    index = _whole(index)
    return index + count if index < 0 else index


def _whole(value: object) -> int:
    """The integer. Raises `TypeError` for what is none, a truth value too."""
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)  # type: ignore[arg-type]


def check_layout(output_fmt: str) -> None:
    """Raise `ConfigError` unless `output_fmt` is "NCHW" or "NHWC"."""
    if output_fmt not in ("NCHW", "NHWC"):
        raise ConfigError(f"output_fmt={output_fmt!r}: expected 'NCHW' or 'NHWC'")


def to_layout(x_BHWC: Tensor, output_fmt: str) -> Tensor:
    """(B, H, W, C) → itself, or (B, C, H, W) contiguous."""
    return x_BHWC if output_fmt == "NHWC" else x_BHWC.permute(0, 3, 1, 2).contiguous()
