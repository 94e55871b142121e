"""Seeds made of a few numbers, and the generators that they seed.

A draw depends on a seed that is a pure function of the run's seed and of what the draw is for: an image in an epoch, a
batch, a step on a process. A run that goes on therefore needs no stored random state.

There are three ways to mix the numbers, because a run that goes on must draw what its earlier part would have drawn:
`image_seed` is the cheapest and serves every image, `stream_seed` takes any numbers, `step_seed` serves training steps.

torch is imported where it is seeded: processes that only corrupt images take seeds from here and start without it.
"""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np

_BITS = 0xFFFFFFFFFFFFFFFF


def image_seed(seed: int, epoch: int, index: int) -> int:
    """64 well-mixed bits for image `index` in `epoch` of the run with `seed`."""
    return mix(mix(mix(seed) ^ epoch) ^ index)


def mix(value: int) -> int:
    """One step of splitmix64, 64 bits → 64 bits: close numbers become unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & _BITS
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _BITS
    return value ^ (value >> 31)


def stream_seed(*parts: int) -> int:
    """64 well-mixed bits of any non-negative numbers, by NumPy's `SeedSequence`."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def step_seed(seed: int, step: int, rank: int) -> int:
    """63 well-mixed bits for training step `step` on process `rank`."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_image(seed: int, epoch: int, index: int) -> None:
    """Seed `random`, NumPy and torch (CPU) for one image, in about 10 µs."""
    import torch

    mixed = image_seed(seed, epoch, index)
    random.seed(mixed)
    np.random.seed(mixed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(mixed)


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed `random`, NumPy and torch (CPU and devices) for one training step on process `rank`.

    A run that goes on draws at step n (stochastic depth, dropout) what an uninterrupted run draws there. Images and
    batches are augmented from seeds of their own.
    """
    import torch

    value = step_seed(seed, step, rank)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    random.seed(value)


@contextlib.contextmanager
def torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU inside the block; those of the devices go on as they were."""
    import torch

    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextlib.contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, with the lower 32 bits of `seed`, inside the block."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


class keep_random_state:  # noqa: N801 - a context manager reads as a function
    """Restore the CPU's generators (`random`, NumPy, torch) at the end of the block."""

    def __enter__(self) -> None:
        import torch

        self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def __exit__(self, *_: object) -> None:
        import torch

        random.setstate(self._states[0])
        np.random.set_state(self._states[1])
        torch.set_rng_state(self._states[2])
