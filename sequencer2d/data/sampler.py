"""Which images each process reads, in which order: a pure function of (seed, epoch, position)."""

from collections.abc import Iterator

import numpy as np

from sequencer2d.errors import ConfigError


class ResumableSampler:
    """Batches of indices for one of `world_size` processes, from any batch of any epoch.

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
        shards: (N,), the shard of each image, where an order is to read few of them at a time.
        mixed: shards whose images are shuffled among each other then.

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
        shards: np.ndarray | None = None,
        mixed: int = 1,
    ) -> None:
        if length < 0 or batch_size < 1 or seed < 0 or not 0 <= rank < world_size:
            raise ConfigError(
                f"sampler: length={length}, batch_size={batch_size}, seed={seed}, rank={rank}, "
                f"world_size={world_size}; expected length ≥ 0, batch_size ≥ 1, seed ≥ 0 and 0 ≤ rank < world_size"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.shuffle, self.rank, self.world_size, self.drop_last = shuffle, rank, world_size, drop_last
        self.shards, self.mixed = shards, mixed
        self.epoch = 0
        self.position = 0
        """The batch of this epoch that the next iteration starts with."""

    @property
    def global_batch(self) -> int:
        """Images of a batch over all processes."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        """Batches of a whole epoch in this process."""
        full, rest = divmod(self.length, self.global_batch)
        return full + int(not self.drop_last and rest > self.rank)

    def seek(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration start at `batch` of `epoch`, both counted from 0."""
        self.epoch, self.position = epoch, batch

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rest of the epoch: one int64 array of indices a batch."""
        order = self._order()
        for number in range(self.position, len(self)):
            start = number * self.global_batch
            yield order[start : start + self.global_batch][self.rank :: self.world_size]

    def _order(self) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.length)
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        return (
            generator.permutation(self.length)
            if self.shards is None
            else order_by_shards(self.shards, self.mixed, generator)
        )


def order_by_shards(shards: np.ndarray, mixed: int, generator: np.random.Generator) -> np.ndarray:
    """An order of all images that reads about `mixed` shards at a time: int64 (N,).

    The shards are shuffled. Each image then lies up to `mixed` shards behind the place of its own, so that shards come
    and go one by one. If there are no more shards than that, any image may follow any other.

    Args:
        shards: (N,), the shard of each image.
        mixed: shards that are read at a time.
        generator: what is drawn from.
    """
    present, own = np.unique(shards, return_inverse=True)
    if len(present) <= mixed:
        return generator.permutation(len(shards))
    places = generator.permutation(len(present))[own]
    return np.argsort(places + generator.random(len(shards)) * mixed, kind="stable")
