"""What happens to a whole batch: a policy in the workers; normalisation, erasing, mixup and cutmix on the device.

Everything random here comes from a seed, so a resumed run draws what the uninterrupted one drew.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from timm.data import Mixup
from torch import Tensor
from torchvision.transforms import v2

from sequencer2d.data.config import DataConfig
from sequencer2d.errors import ConfigError

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
        rank: this process; each draws its own.
    """

    def __init__(self, config: DataConfig, num_classes: int, *, seed: int = 0, rank: int = 0) -> None:
        self.config, self.seed, self.rank = config, seed, rank
        self.mixer = mixup(config, num_classes)

    def __call__(
        self, images: Tensor, targets: Tensor, *, step: int, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Normalise, erase and mix a batch on the device it lies on.

        Args:
            images: uint8 (B, 3, H, W).
            targets: int64 (B,).
            step: number of this batch in the run; the same number draws the same.
            dtype: of the images returned.

        Returns:
            images in `dtype` of the same shape, and targets: int64 (B,), or float32 (B, classes) that sum to 1 if mixup
            or cutmix is on. Label smoothing is the loss's.
        """
        images = normalize(images, self.config.mean, self.config.std, dtype=dtype)
        if self.config.erasing > 0:
            seed = _seed_of(self.seed, _ERASING_STREAM, self.rank, step)
            images = erase(images, self.config.erasing, mode=self.config.erasing_mode, seed=seed)
        if self.mixer is not None:
            images, targets = self.mixer(images, targets, seed=_seed_of(self.seed, _MIXUP_STREAM, self.rank, step))
        return images, targets


def normalize(
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(images / 255 - mean) / std: uint8 (B, 3, H, W) → `dtype`, on `device` (default: where the images are)."""
    images = images.to(device, non_blocking=True).to(dtype)
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device, dtype)
    return torch.addcmul(shift, images, scale)


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
    with _torch_seeded(seed):
        return torch.cat([transform(part) for part in images.chunk(min(draws, len(images)))])


def erase(images: Tensor, probability: float, *, mode: str = "pixel", seed: int = 0) -> Tensor:
    """Random erasing of normalised images (Zhong et al.): one rectangle an image, with `probability`.

    Args:
        images: (B, C, H, W), normalised, on any device.
        probability: that an image loses a rectangle.
        mode: "pixel" fills it with normal noise, "color" with one normal colour, "constant" with 0, the mean colour.
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
    """timm's mixup and cutmix of one batch, drawn from a seed of its own instead of numpy's global generator."""

    def __init__(self, mixup: Mixup) -> None:
        self._mixup = mixup

    def __call__(self, images: Tensor, targets: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Mix each image with its counterpart in the reversed batch.

        Args:
            images: (B, C, H, W), floating point, B even; overwritten.
            targets: int64 (B,).
            seed: of the mix; each step needs its own.

        Returns:
            mixed images and float32 (B, classes) targets.

        Raises:
            ConfigError: B is odd.
        """
        if len(images) % 2:
            raise ConfigError(
                f"mixup and cutmix pair the images of a batch, which has {len(images)} of them in each process; "
                "choose an even data.batch_size, or set data.mixup=0 data.cutmix=0"
            )
        with _numpy_seeded(seed):
            return self._mixup(images, targets)


def mixup(config: DataConfig, num_classes: int) -> Mixer | None:
    """The mixup and cutmix of the configuration, one draw a batch; None if both are off."""
    if not config.mixes:
        return None
    return Mixer(
        Mixup(
            mixup_alpha=config.mixup,
            cutmix_alpha=config.cutmix,
            prob=config.mixup_prob,
            switch_prob=config.mixup_switch_prob,
            label_smoothing=0.0,
            num_classes=num_classes,
        )
    )


@functools.lru_cache(maxsize=16)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """1 / (255 std) and -mean / std, (C, 1, 1) each. Kept: copying them to a GPU would make every step wait for it."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * part) for part in std], dtype=dtype, device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=device)
    return scale.view(-1, 1, 1), shift.view(-1, 1, 1)


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


@contextlib.contextmanager
def _torch_seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU alone, from which the policies draw; the devices' go on as they were."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextlib.contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


def _seed_of(*parts: int) -> int:
    """A well-mixed seed below 2^63 from a few numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
