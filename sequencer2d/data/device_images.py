"""All images of a source in the memory of a device."""

import numpy as np
import torch

from sequencer2d.data.cache import CachedSource
from sequencer2d.data.sources import Source, require_readable
from sequencer2d.errors import ConfigError, DataError


class DeviceImages:
    """Every image of a source in one tensor on a device.

    A broken image is replaced by the next readable one, as in training from files.

    Args:
        source: the images, all of one size.
        device: where they lie.
        max_broken: images that may be unreadable.
        processes: that decode them, see `CachedSource`.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        targets: int64 (N,).
        broken: description of each unreadable image → the reason.

    Raises:
        DataError: the images have several sizes, or more than `max_broken` of them, or all, cannot be read.
        ConfigError: they do not fit into the device's free memory.
    """

    def __init__(self, source: Source, device: torch.device, max_broken: int, processes: int = 0) -> None:
        cached = source if isinstance(source, CachedSource) else CachedSource(source, processes)
        self.broken = {source.describe(index): reason for index, reason in cached.broken.items()}
        require_readable(self.broken, len(source), max_broken)
        readable = np.array([index for index in range(len(source)) if index not in cached.broken])
        _check_one_size(cached.shapes, readable, source)
        pixels = cached.pixels.reshape(-1, *cached.shapes[readable[0]])
        targets = np.asarray(cached.targets)
        _check_memory(len(source) * pixels[0].size, device)
        self.pixels, self.targets = torch.from_numpy(pixels).to(device), torch.from_numpy(targets).to(device)
        if cached.broken:  # each is replaced by the next readable one, the last by the first
            places = np.searchsorted(readable, np.arange(len(source))) % len(readable)
            chosen = torch.from_numpy(places).to(device)
            self.pixels = self.pixels[chosen]
            self.targets = self.targets[torch.from_numpy(readable).to(device)[chosen]]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]


def _check_one_size(shapes: np.ndarray, readable: np.ndarray, source: Source) -> None:
    first = shapes[readable[0]]
    others = readable[(shapes[readable] != first).any(1)]
    if len(others):
        (height, width, _), (first_height, first_width, _) = shapes[others[0]], first
        raise DataError(
            f"data.augment_on=device needs images of one size: {source.describe(int(readable[0]))} has "
            f"{first_width}×{first_height} pixels, {source.describe(int(others[0]))} has {width}×{height}; set "
            "data.augment_on=workers"
        )


def _check_memory(needed: int, device: torch.device) -> None:
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if needed > free // 2:
            raise ConfigError(
                f"the images take {needed >> 20} MiB and {device} has {free >> 20} MiB free, of which half is kept for "
                "training; set data.augment_on=workers"
            )
