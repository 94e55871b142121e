"""How fast the input is: the time of each step on a core, and the images that the loader delivers a second.

Times of a core are CPU time, so that other programs on the machine do not count. Rates of the loader go by the clock.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from timm.data.auto_augment import RandAugment
from torch.utils.data import Dataset

from sequencer2d.data.batch_loader import BatchLoader
from sequencer2d.data.batches import BatchTransform, erase
from sequencer2d.data.config import DataConfig
from sequencer2d.data.device_augment import apply_steps, fill_color
from sequencer2d.data.eval_transforms import Pipeline
from sequencer2d.data.normalization import normalize
from sequencer2d.data.photos import RepeatedSource
from sequencer2d.data.policy_loader import drawn_steps
from sequencer2d.data.samples import ImageOnly, Samples, SampleTransform
from sequencer2d.data.sources import Source
from sequencer2d.data.workers import Key
from sequencer2d.seeds import keep_random_state, seed_image

Row = dict[str, Any]

_IMAGES = 32
_NAMES = {
    "RandomResizedCropAndInterpolation": "crop",
    "TorchResizedCrop": "crop",
    "PadCrop": "crop",
    "RandomHorizontalFlip": "flip",
    "RandAugment": "policy",
    "ColorJitter": "color jitter",
}
"""The name of each step of a transform in the rows."""


def worker_rows(
    config: DataConfig, source: Source, samples: Samples, reader: Dataset[Any], seconds: float
) -> list[Row]:
    """What a worker spends on an image, one row a step, and the whole of it: "worker", with stacking and all else.

    Args:
        config: the transform.
        source: of the images.
        samples: of the task.
        reader: what the loader's workers run.
        seconds: CPU time of each row.
    """
    indices = np.arange(min(_IMAGES, len(source)))
    pictures, rows = [source[index][0] for index in indices.tolist()], []
    with keep_random_state(), _one_thread():
        rows.append(_row("decode", _core_ms(lambda index: source[index], len(indices), seconds)))
        for step in _steps(samples.train_transform(config)):
            if isinstance(step, RandAugment) and config.augment_on != "workers":
                continue
            name = _NAMES.get(type(step).__name__, type(step).__name__)
            rows.append(_row(name, _core_ms(_seeded(step, pictures), len(indices), seconds)))
            pictures = [step(picture) for picture in pictures]
        key = Key(0, indices)
        rows.append(_row("worker", _core_ms(lambda _: reader[key], 1, seconds) / len(indices)))
    return rows


def device_rows(config: DataConfig, batch: int, device: torch.device, seconds: float) -> list[Row]:
    """What the training device spends on an image of a batch: policy, mixup, normalizing, erasing, those it runs."""
    images = torch.randint(0, 256, (batch, 3, *config.size), dtype=torch.uint8, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 1000, (batch,), device=device)
    normalized = normalize(images, config.mean, config.std)
    mixer = BatchTransform(config, 1000).mixer
    steps: dict[str, Callable[[int], object]] = {"normalize": lambda _: normalize(images, config.mean, config.std)}
    if mixer is not None:
        steps["mixup"] = lambda seed: mixer(images, targets, seed=seed)
    if config.erasing:
        steps["erase"] = lambda seed: erase(normalized, config.erasing, mode=config.erasing_mode, seed=seed)
    if config.augment_on == "workers+device":
        fill = torch.tensor(fill_color(config), dtype=torch.uint8, device=device)
        drawn = drawn_steps(config, batch, config.size).to(device)
        planar = images.contiguous()
        steps["policy"] = lambda _: apply_steps(planar, drawn, fill)
    measure = _core_ms if device.type == "cpu" else _device_ms
    with _one_thread():
        return [_row(name, measure(step, 1, seconds) / batch, device.type) for name, step in steps.items()]


def loader_row(
    make: Callable[[Source], BatchLoader], source: Source, batch: int, *, workers: int, ms: float, seconds: float
) -> Row:
    """What the loader delivers to a training process that takes each batch at once.

    Args:
        make: source → training loader of whole batches.
        source: of the images, which come again as often as needed.
        batch: images of a batch.
        workers: processes that read.
        ms: CPU time of an image in a worker, for how many batches there are.
        seconds: how long the loader is timed, roughly.

    Returns:
        A row with `images_per_s` by the clock and `ms_per_image`, the CPU time of all processes together.
    """
    warm_up = max(1, workers)
    count = warm_up + max(4, workers, math.ceil(1e3 * seconds * warm_up / (ms * batch)))
    spent = _cpu_s()
    loader = make(RepeatedSource(source, count * batch))
    for number, _ in enumerate(loader, 1):
        if number == warm_up:
            started = time.perf_counter()
    elapsed = time.perf_counter() - started
    loader.close()
    core_ms = 1e3 * (_cpu_s() - spent) / (count * batch)
    rate = (count - warm_up) * batch / elapsed
    return {**_row("loader", core_ms, "processes"), "images_per_s": round(rate, 1), "workers": workers}


def _row(part: str, ms: float, where: str = "core") -> Row:
    return {"part": part, "where": where, "ms_per_image": round(ms, 5), "images_per_s": round(1e3 / ms, 1)}


def _steps(transform: SampleTransform) -> list[Callable[[Any], Any]]:
    """The steps of a transform that takes images alone; empty if it transforms targets as well."""
    pipeline = transform.transform if isinstance(transform, ImageOnly) else None
    return list(pipeline.steps) if isinstance(pipeline, Pipeline) else []


def _seeded(step: Callable[[Any], Any], images: list[Any]) -> Callable[[int], object]:
    """A call of `step` on an image whose random draws differ between rounds, as they do between epochs."""
    rounds = [0] * len(images)

    def work(index: int) -> object:
        seed_image(0, rounds[index], index)
        rounds[index] += 1
        return step(images[index])

    return work


def _core_ms(work: Callable[[int], object], count: int, seconds: float) -> float:
    """CPU time of a call in milliseconds, over whole rounds of `count` calls."""
    for index in range(count):
        work(index)
    rounds, started = 0, time.process_time()
    while not rounds or time.process_time() - started < seconds:
        for index in range(count):
            work(index)
        rounds += 1
    return 1e3 * (time.process_time() - started) / (rounds * count)


def _device_ms(work: Callable[[int], object], count: int, seconds: float) -> float:
    """Time of a call in milliseconds on a CUDA device that does nothing else."""
    for index in range(3):
        work(index)
    torch.cuda.synchronize()
    calls, started = 0, time.perf_counter()
    while not calls or time.perf_counter() - started < seconds:
        for index in range(10 * count):
            work(index)
        torch.cuda.synchronize()
        calls += 10 * count
    return 1e3 * (time.perf_counter() - started) / calls


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Give PyTorch one thread, as in a worker process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu_s() -> float:
    """CPU time of this process and of its children that have ended, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
