"""What the input delivers beside what the model takes: the steps of the input, the loader, the training step."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from sequencer2d import tasks
from sequencer2d.data.batch_loader import BatchLoader, build_sampler
from sequencer2d.data.cache import CachedSource
from sequencer2d.data.device_loader import device_loader
from sequencer2d.data.loader import Loader
from sequencer2d.data.photos import PhotoSource, RepeatedSource
from sequencer2d.data.rates import Row, device_rows, loader_row, worker_rows
from sequencer2d.data.samples import CLASS_NUMBERS, map_tensors
from sequencer2d.data.sources import Source
from sequencer2d.data.workers import decoding_processes, worker_count
from sequencer2d.errors import ConfigError
from sequencer2d.training.assemble import build_model, build_step, resolve
from sequencer2d.training.config import TrainConfig
from sequencer2d.training.distributed import Processes
from sequencer2d.training.numerics import memory_errors, numerics

_WARM_UP_STEPS = 5


def input_rows(
    config: TrainConfig, photo: tuple[int, int], device: torch.device, *, seconds: float, model: bool
) -> Iterator[Row]:
    """Time the input of one process, row after row; the last row is the training step, if `model`.

    Args:
        config: a run; `data.batch_size` is what this process takes in a step.
        photo: (width, height) in pixels of the photos that are made where the configuration names no data.
        device: the training device.
        seconds: of each row, roughly.
        model: whether to time the training step.

    Yields:
        `part`; `where` it runs (core, processes, cpu, cuda); `ms_per_image`, of CPU time except on CUDA;
        `images_per_s`, of one core or, for the loader and the training step, by the clock.

    Raises:
        UserError: the configuration does not fit, or there are no photos.
    """
    data, samples = config.data, tasks.get(config.task).samples
    source = open_images(config, photo)
    make = functools.partial(_loader, config, device)
    loader = make(source)
    rows = worker_rows(data, source, samples, loader.reader, seconds)
    loader.close()
    yield from rows
    if samples is CLASS_NUMBERS:
        yield from device_rows(data, data.batch_size, device, seconds)
    workers, ms = worker_count(data), rows[-1]["ms_per_image"]
    yield loader_row(make, source, data.batch_size, workers=workers, ms=ms, seconds=seconds)
    if model:
        yield _step_row(config, make(source), device, seconds)


def open_images(config: TrainConfig, photo: tuple[int, int]) -> Source:
    """The training images of the configuration or, where it names none, photos. Raises `DataError`, `ConfigError`."""
    data, samples = config.data, tasks.get(config.task).samples
    if data.source == "folder" and not data.root:
        if samples is not CLASS_NUMBERS:
            raise ConfigError(f"task={config.task} needs targets that photos lack; set data.root")
        source: Source = PhotoSource(photo, decoding=data.decoding)
    else:
        source = (samples.open_training or samples.open)(data, data.train_split)
    if data.batch_size > len(source):
        source = RepeatedSource(source, data.batch_size)
    return CachedSource(source, decoding_processes(data)) if data.cache else source


def _loader(config: TrainConfig, device: torch.device, source: Source) -> BatchLoader:
    sampler = build_sampler(config.data, source, train=True)
    if config.data.augment_on != "workers":
        return device_loader(source, sampler, config.data, device)
    samples = tasks.get(config.task).samples
    return Loader(source, sampler, config.data, train=True, samples=samples, pin_memory=device.type == "cuda")


def _step_row(config: TrainConfig, loader: BatchLoader, device: torch.device, seconds: float) -> Row:
    """The training step on one batch, again and again."""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, pretrained=False, checkpoint=None))
    config = resolve(config, len(loader.class_names))
    images, targets = map_tensors(lambda tensor: tensor.to(device), next(iter(loader)))
    loader.close()
    here = Processes(rank=0, local_rank=0, world_size=1, device=device)
    with numerics(config.run, device), memory_errors():
        step = build_step(config, build_model(config, device), here)
        numbers = itertools.count()
        train: Callable[[], Any] = lambda: step(images, targets, next(numbers), 1e-4)  # noqa: E731 - with what it closes over
        for _ in range(_WARM_UP_STEPS):
            train()
        _wait(device)
        count, started = 0, time.perf_counter()
        while not count or time.perf_counter() - started < seconds:
            train()
            _wait(device)
            count += 1
        rate = count * config.data.batch_size / (time.perf_counter() - started)
    return {
        "part": "training step",
        "where": device.type,
        "ms_per_image": round(1e3 / rate, 5),
        "images_per_s": round(rate, 1),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
