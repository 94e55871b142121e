"""What happens to a whole batch: a policy in the workers; mixup and cutmix, normalization, erasing on the device.

That is timm's order and the order of the paper's runs: images are mixed as bytes, then normalized, then erased, so that
no image carries another's erased rectangle. Everything random here comes from a seed, so a resumed run draws what the
uninterrupted one drew.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from timm.data import Mixup
from torch import Tensor
from torchvision.transforms import v2

from sequencer2d.data.config import DataConfig, require_pairs
from sequencer2d.data.normalization import normalize
from sequencer2d.seeds import numpy_seeded, stream_seed, torch_seeded

# Zhong et al., "Random Erasing Data Augmentation", section 3.2, with the bounds that timm's recipes use.
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
_ATTEMPTS = 10

_ERASING_STREAM, _MIXUP_STREAM = 1, 2


class BatchTransform:
    """uint8 batches from a training loader → what the model and the loss take.

    Args:
        config: mean, std, erasing, mixup and cutmix.
        num_classes: of the targets.
        seed: of the run.
        rank: this process, 0 to world_size - 1; each erases with draws of its own.
        world_size: processes, which read the global batch as `ResumableSampler` hands it out.
    """

    def __init__(
        self, config: DataConfig, num_classes: int, *, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.config, self.seed, self.rank = config, seed, rank
        self.mixer = mixup(config, num_classes, rank=rank, world_size=world_size)

    def __call__(
        self, images: Tensor, targets: Tensor, *, step: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Mix, normalize and erase a batch on the device it lies on.

        Args:
            images: uint8 (B, 3, H, W).
            targets: int64 (B,).
            step: number of this batch in the run; the same number draws the same.
            dtype: of the images returned.

        Returns:
            images in `dtype` of the same shape, and targets: int64 (B,), or float32 (B, classes) that sum to 1 if mixup
            or cutmix is on. Label smoothing is the loss's.
        """
        if self.mixer is not None:
            images, targets = self.mixer(images, targets, seed=_stream(self.seed, _MIXUP_STREAM, step))
        images = normalize(images, self.config.mean, self.config.std, dtype=dtype)
        if self.config.erasing > 0:
            seed = _stream(self.seed, _ERASING_STREAM, self.rank, step)
            images = erase(images, self.config.erasing, mode=self.config.erasing_mode, seed=seed)
        return images, targets


def augment(images: Tensor, policy: str, *, draws: int = 8, seed: int = 0) -> Tensor:
    """Run a policy of torchvision's on parts of a batch, each part with a draw of its own.

    On the CPU: on a GPU its many small operations, some of which the host waits for, take longer than a training step.

    Args:
        images: uint8 (B, 3, H, W).
        policy: "rand" (RandAugment, two operations of magnitude 9 of 31) or "trivial" (TrivialAugmentWide).
        draws: parts of the batch, at most B.
        seed: of the operations drawn.

    Returns:
        A new tensor of the same shape, dtype and device.
    """
    transform = _policy(policy)
    with torch_seeded(seed):
        return torch.cat([transform(part) for part in images.chunk(min(draws, len(images)))])


def erase(images: Tensor, probability: float, *, mode: str = "pixel", seed: int = 0) -> Tensor:
    """Random erasing of normalized images (Zhong et al.): one rectangle an image, with `probability`.

    Args:
        images: (B, C, H, W), normalized, on any device.
        probability: that an image loses a rectangle.
        mode: "pixel" fills it with normal noise, "color" with one normal color, "constant" with 0, the mean color.
        seed: of the rectangles and the noise.

    Returns:
        A new tensor of the same shape and dtype.
    """
    batch, channels, height, width = images.shape
    boxes = _boxes(np.random.Generator(np.random.PCG64(seed)), batch, probability, height, width)
    top, bottom, left, right = torch.from_numpy(boxes).to(images.device, non_blocking=True).view(4, batch, 1, 1, 1)
    rows = torch.arange(height, device=images.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=images.device).view(1, 1, 1, width)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    if mode == "constant":
        return images.masked_fill(inside, 0)
    generator = torch.Generator(images.device).manual_seed(seed)
    size = images.shape if mode == "pixel" else (batch, channels, 1, 1)
    noise = torch.randn(size, generator=generator, dtype=images.dtype, device=images.device)
    return torch.where(inside, noise, images)


class Mixer:
    """timm's mixup and cutmix of one process's batch, with one draw for each group of the global batch.

    Which images are mixed, with which coefficient and rectangle, depends on the global batch alone, not on the number
    of processes that share it. Process `rank` holds the images `rank`, `rank + world_size`, … of the global batch. An
    image is paired with the one half a global batch away, which always lies in the same process. The pairs are dealt
    out to the groups in turn, so one process may hold a part of a group, one group, or several.

    Args:
        mixup: timm's, for one draw a batch (`mode="batch"`).
        group: images of the global batch that share one draw, at most; the groups are made as equal as possible.
        rank: this process, 0 to world_size - 1.
        world_size: processes.
    """

    def __init__(self, mixup: Mixup, *, group: int, rank: int = 0, world_size: int = 1) -> None:
        self._mixup, self._group, self._rank, self._world_size = mixup, group, rank, world_size

    def __call__(self, images: Tensor, targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Mix each image with its partner.

        Args:
            images: uint8 (B, C, H, W), B even.
            targets: int64 (B,).
            seed: of the mix, the same in all processes; each step needs its own.

        Returns:
            float32 (B, C, H, W) mixed images, rounded to whole numbers as timm's collate function rounds them, and
            float32 (B, classes) targets.

        Raises:
            ConfigError: B is odd.
        """
        require_pairs(len(images))
        mixed = torch.empty_like(images, dtype=torch.float32)
        labels = torch.empty(len(images), self._mixup.num_classes, device=images.device)
        for number, members in self._groups(len(images)):
            members = members.to(images.device, non_blocking=True)
            with numpy_seeded(_stream(seed, number)):
                mixed[members], labels[members] = self._mixup(images[members].float(), targets[members])
        return mixed.round_(), labels

    def _groups(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Number and members of each group that lies in this process, the members so that timm's pairs are ours.

        timm pairs the first image with the last one, the second with the last but one, and so on.
        """
        pairs = size // 2
        count = min(-(-size * self._world_size // self._group), pairs * self._world_size)
        pair = torch.arange(pairs)
        number = (self._rank + pair * self._world_size) % count
        for group in number.unique().tolist():
            first = pair[number == group]
            yield group, torch.cat([first, first.flip(0) + pairs])


def mixup(config: DataConfig, num_classes: int, *, rank: int = 0, world_size: int = 1) -> Mixer | None:
    """The mixup and cutmix of the configuration; None if both are off."""
    if not config.mixes:
        return None
    timms = Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mixup_prob,
        switch_prob=config.mixup_switch_prob,
        label_smoothing=0.0,
        num_classes=num_classes,
    )
    return Mixer(timms, group=config.mixup_group, rank=rank, world_size=world_size)


def _boxes(generator: np.random.Generator, batch: int, probability: float, height: int, width: int) -> np.ndarray:
    """int64 (4, batch): top, bottom, left, right of each image's rectangle, all 0 where nothing is erased."""
    chosen = generator.random(batch) < probability
    area = generator.uniform(*ERASED_AREA, (_ATTEMPTS, batch)) * height * width
    aspect = np.exp(generator.uniform(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), (_ATTEMPTS, batch)))
    rows, columns = np.rint(np.sqrt(area * aspect)).astype(int), np.rint(np.sqrt(area / aspect)).astype(int)
    fits = (rows < height) & (columns < width)
    first = fits.argmax(0), np.arange(batch)
    chosen &= fits.any(0)
    box_rows, box_columns = rows[first] * chosen, columns[first] * chosen
    top = np.floor(generator.random(batch) * (height - box_rows + 1)).astype(int)
    left = np.floor(generator.random(batch) * (width - box_columns + 1)).astype(int)
    return np.stack([top, top + box_rows, left, left + box_columns])


@functools.lru_cache(maxsize=2)
def _policy(name: str) -> torch.nn.Module:
    policies = {"rand": v2.RandAugment, "trivial": v2.TrivialAugmentWide}
    return policies[name](interpolation=v2.InterpolationMode.BILINEAR)


def _stream(*parts: int) -> int:
    """A well-mixed seed below 2^63 from a few numbers."""
    return stream_seed(*parts) >> 1
