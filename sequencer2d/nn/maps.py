"""Feature maps of backbones: which stages to return, and in which layout."""

from collections.abc import Sequence

from torch import Tensor

from sequencer2d.errors import ConfigError


def take_indices(count: int, indices: int | Sequence[int] | None) -> tuple[int, ...]:
    """Resolve a choice among `count` stages: None is all, an integer n the last n, negative ones count from the end.

    Raises:
        ConfigError: an index that no stage has.
    """
    if indices is None:
        return tuple(range(count))
    if isinstance(indices, int):
        chosen: tuple[int, ...] = tuple(range(count - indices, count))
        valid = 1 <= indices <= count
    else:
        chosen = tuple(index + count if index < 0 else index for index in indices)
        valid = bool(chosen) and all(0 <= index < count for index in chosen)
    if not valid:
        raise ConfigError(f"indices={indices!r}: the model has stages 0 to {count - 1} (or −{count} to −1)")
    return chosen


def check_layout(output_fmt: str) -> None:
    """Raise `ConfigError` unless `output_fmt` is "NCHW" or "NHWC"."""
    if output_fmt not in ("NCHW", "NHWC"):
        raise ConfigError(f"output_fmt={output_fmt!r}: expected 'NCHW' or 'NHWC'")


def to_layout(x_BHWC: Tensor, output_fmt: str) -> Tensor:
    """(B, H, W, C) → itself, or (B, C, H, W) contiguous."""
    return x_BHWC if output_fmt == "NHWC" else x_BHWC.permute(0, 3, 1, 2).contiguous()
