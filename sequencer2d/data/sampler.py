"""Which images each process reads, in which order: a pure function of (seed, epoch, position)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sequencer2d.errors import CheckpointError, ConfigError


class ResumableSampler:
    """Batches of indices for one of `world_size` processes, from any point of an epoch.

    The epoch is one order of all images, cut into global batches of `batch_size * world_size`; process `rank` takes
    every `world_size`-th index of each. Hence no image is read twice, and a run continues with another number of
    processes as long as the global batch stays the same.

    Args:
        length: images in the data set.
        batch_size: images of a batch in this process.
        seed: of the order; each epoch has its own.
        shuffle: a new order in every epoch, or the order of the data set.
        rank: this process, 0 to world_size - 1.
        world_size: processes.
        drop_last: leave out the global batch that is not full (training); otherwise it is split as evenly as it goes,
            every image exactly once, and some processes may get one batch less (evaluation).

    Raises:
        ConfigError: numbers out of range.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        if length < 0 or batch_size < 1 or seed < 0 or not 0 <= rank < world_size:
            raise ConfigError(
                f"sampler: length={length}, batch_size={batch_size}, seed={seed}, rank={rank}, "
                f"world_size={world_size}; expected length ≥ 0, batch_size ≥ 1, seed ≥ 0 and 0 ≤ rank < world_size"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.rank, self.world_size, self.drop_last = shuffle, rank, world_size, drop_last
        self.epoch = 0
        self.position = 0
        """Batches of this epoch that are done."""

    @property
    def global_batch(self) -> int:
        """Images of a batch over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        full, rest = divmod(self.length, self.global_batch)
        return full + int(not self.drop_last and rest > self.rank)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of `epoch`; in the current epoch, stay where we are (as after `load_state_dict`)."""
        if epoch != self.epoch:
            self.epoch, self.position = epoch, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rest of the epoch: one int64 array of indices a batch. Does not move `position`; its reader does."""
        order = self._order()
        for number in range(self.position, len(self)):
            start = number * self.global_batch
            yield order[start : start + self.global_batch][self.rank :: self.world_size]

    def state_dict(self) -> dict[str, Any]:
        """The position, in plain numbers; `consumed` counts the epoch's images over all processes."""
        return {
            "epoch": self.epoch,
            "consumed": self.position * self.global_batch,
            "length": self.length,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            CheckpointError: it belongs to another data set, seed or order, or lies between two batches of this size.
        """
        for name in ("length", "seed", "shuffle"):
            if state[name] != getattr(self, name):
                raise CheckpointError(
                    f"the saved position in the data has {name}={state[name]}, this run has {getattr(self, name)}; "
                    "resume with the data and seed of the run"
                )
        if state["consumed"] % self.global_batch:
            raise CheckpointError(
                f"the saved position, {state['consumed']} images into the epoch, is no multiple of the batch over all "
                f"processes, {self.global_batch}; resume with the batch size of the run"
            )
        self.epoch, self.position = state["epoch"], state["consumed"] // self.global_batch

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.length)
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.length)
