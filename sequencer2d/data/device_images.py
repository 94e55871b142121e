"""All images of a source in the memory of a device."""

import numpy as np
import torch
from torch import Tensor

from sequencer2d.data.cache import CachedSource
from sequencer2d.data.images import BrokenImageError
from sequencer2d.data.sources import Source, require_readable
from sequencer2d.errors import ConfigError, DataError


class DeviceImages:
    """Every image of a source in one tensor on a device.

    A broken image is replaced by the next readable one, as in training from files.

    Attributes:
        pixels: uint8 (N, H, W, 3).
        targets: int64 (N,).
        broken: description of each unreadable image → the reason.

    Raises:
        DataError: the images have several sizes, or more than `max_broken` of them, or all, cannot be read.
        ConfigError: they do not fit into the device's free memory.
    """

    def __init__(self, source: Source, device: torch.device, max_broken: int) -> None:
        self.broken: dict[str, str] = {}
        arrays: list[np.ndarray | None] = []
        targets = np.zeros(len(source), np.int64)
        cached = CachedSource(source)
        for index in range(len(source)):
            try:
                image, targets[index] = cached[index]
                arrays.append(np.asarray(image))
            except BrokenImageError as error:
                self.broken[source.describe(index)] = str(error)
                arrays.append(None)
        require_readable(self.broken, len(source), max_broken)
        _replace_broken(arrays, targets)
        self.pixels = _stack(arrays, source, device)
        self.targets = torch.from_numpy(targets).to(device)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[2]


def _replace_broken(arrays: list[np.ndarray | None], targets: np.ndarray) -> None:
    count = len(arrays)
    for index in [place for place, array in enumerate(arrays) if array is None]:
        readable = next(place % count for place in range(index, index + count) if arrays[place % count] is not None)
        arrays[index], targets[index] = arrays[readable], targets[readable]


def _stack(arrays: list[np.ndarray | None], source: Source, device: torch.device) -> Tensor:
    shapes = [array.shape for array in arrays if array is not None]
    other = next((index for index, shape in enumerate(shapes) if shape != shapes[0]), None)
    if other is not None:
        (height, width, _), (first_height, first_width, _) = shapes[other], shapes[0]
        raise DataError(
            f"data.augment_on=device needs images of one size: {source.describe(0)} has {first_width}×{first_height} "
            f"pixels, {source.describe(other)} has {width}×{height}; set data.augment_on=workers"
        )
    needed = len(arrays) * int(np.prod(shapes[0]))
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if needed > free // 2:
            raise ConfigError(
                f"the images take {needed >> 20} MiB and {device} has {free >> 20} MiB free, of which half is kept for "
                "training; set data.augment_on=workers"
            )
    return torch.from_numpy(np.stack([array for array in arrays if array is not None])).to(device)
