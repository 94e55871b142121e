"""A few optimizer steps on random images show how fast a configuration trains here, and whether its batch fits."""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator

import torch

from sequencer2d.environment import launch
from sequencer2d.errors import DeviceError
from sequencer2d.training import assemble
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import processes
from sequencer2d.training.numerics import memory_errors, numerics

_STEPS, _SECONDS = 10, 5.0
"""The most steps that are timed; fewer if the time is over earlier, but at least one. The first step is not timed."""


def images_per_s(config: TrainConfig) -> float:
    """Images per second that training by `config` processes here: the median of a few steps, without reading images.

    Args:
        config: resolved, its number of classes included. First weights are not loaded, and nothing is compiled.

    Raises:
        DeviceError: the batch does not fit into the memory, even split by `optimizer.accumulation`.
        UserError: as `training.loop.train`.
    """
    spec = config.model
    quick = dataclasses.replace(config, run=dataclasses.replace(config.run, compile=False))
    with processes(config.distributed, config.run.device) as here, numerics(config.run, here.device), memory_errors():
        with _own_random_numbers():
            model = assemble.build_model(quick, here.device, first_weights=False)
            step = assemble.build_step(quick, model, here)
        height, width = config.data.size
        batch = config.data.batch_size // launch().world_size
        images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, device=here.device)
        targets = torch.arange(batch, device=here.device) % (spec.num_classes or 1)
        seconds: list[float] = []
        while len(seconds) < 2 or (len(seconds) <= _STEPS and sum(seconds[1:]) < _SECONDS):
            started = time.perf_counter()
            loss, _ = step(images, targets, len(seconds), 0.0)
            loss.item()  # waits for the device
            seconds.append(time.perf_counter() - started)
        if here.device.type == "cuda":
            torch.cuda.empty_cache()
    return config.data.batch_size / statistics.median(seconds[1:])


def batch_that_fits(config: TrainConfig) -> tuple[TrainConfig, float]:
    """`config` with its batch split into the fewest parts that fit into memory, and its images/s.

    Raises:
        DeviceError: not even one image at a time fits.
    """
    parts = config.optimizer.accumulation
    while True:
        tried = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, accumulation=parts))
        try:
            return tried, images_per_s(tried)
        except DeviceError as error:
            if 2 * parts > config.data.batch_size or "out of memory" not in str(error):
                raise
            parts *= 2


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Restore the state of the random generators after the trial."""
    with torch.random.fork_rng(devices=[]):
        yield
