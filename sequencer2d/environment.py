"""Which of torchrun's processes this is, from the environment that torchrun sets; one process without it."""

import os
from dataclasses import dataclass

from sequencer2d.errors import ConfigError

MOST_PROCESSES = 1_000_000


@dataclass(frozen=True)
class Launch:
    """Who this process is among those that were started together."""

    rank: int
    """Number among all processes, from 0."""
    local_rank: int
    """Number among the processes of this host, from 0."""
    world_size: int
    """All processes."""
    local_world_size: int
    """Processes of this host."""


def launch() -> Launch:
    """Read the environment. Raises `ConfigError` for values that no launcher sets."""
    world_size = _number("WORLD_SIZE", 1, lowest=1)
    local_world_size = _number("LOCAL_WORLD_SIZE", 1, lowest=1)
    rank, local_rank = _number("RANK", 0, lowest=0), _number("LOCAL_RANK", 0, lowest=0)
    if rank >= world_size:
        raise ConfigError(
            f"environment variable RANK={rank} must be below WORLD_SIZE={world_size}, as torchrun sets them"
        )
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if world_size > 1 and not os.environ.get(name):
            raise ConfigError(
                f"environment variable WORLD_SIZE={world_size} asks for several processes, but {name} is not set; "
                "start them with torchrun, or unset WORLD_SIZE"
            )
    return Launch(rank, local_rank, world_size, local_world_size)


def is_first_process() -> bool:
    """Whether this process is the one that speaks for all. Does not check the environment, as `launch` does."""
    return os.environ.get("RANK", "").strip() in ("", "0")


def under_torchrun() -> bool:
    """Whether torchrun started this process, and watches its exit code."""
    return bool(os.environ.get("TORCHELASTIC_RUN_ID"))


def _number(name: str, default: int, *, lowest: int) -> int:
    text = os.environ.get(name, "").strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None if text else default
    if number is None or not lowest <= number <= MOST_PROCESSES:
        raise ConfigError(
            f"environment variable {name} must be an integer of at least {lowest}, as torchrun sets it; got {text!r}"
        )
    return number
