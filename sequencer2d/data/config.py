"""The configuration of the data: which images, which size, how they are augmented and read."""

import math
from dataclasses import dataclass
from typing import Literal

from sequencer2d.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DataConfig:
    """Images for training and evaluation. The defaults are the paper's ImageNet recipe (facts: section 4.1, table 1).

    A field out of its range raises `ConfigError`.
    """

    source: str = "folder"
    """`folder` (root/<split>/<class>/*), `digits`, `wds:<shards>.tar`, `hfds:<name>`, `torch:<name>`, or a path."""
    root: str = ""
    """The folder of the images; shards and data sets by name are looked for in it."""
    train_split: str = "train"
    val_split: str = "val"
    """Split to evaluate on. A folder may also call it validation or valid; without one of these, test is taken."""
    download: bool = False
    """Let `hfds:` and `torch:` fetch what is not there. Nothing is ever downloaded without it."""
    image_size: int | tuple[int, int] = 224
    """Pixels of a side, or (height, width)."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean of the red, green and blue channels, which run from 0 to 1."""
    std: tuple[float, float, float] = IMAGENET_STD
    """Standard deviation of the channels, which run from 0 to 1."""

    batch_size: int = 1024
    """Images of one optimizer step, over all processes."""
    workers: int | None = None
    """Processes that read images, for each training process; 0 reads in the training process itself; none: one for
    each CPU core that falls to it, at most 16. Results do not depend on it."""
    prefetch: int = 2
    """Batches that each worker holds ready."""
    cache: bool = False
    """Keep every image decoded in memory (height · width · 3 bytes each): for small data sets."""
    max_broken: int = 20
    """Images of a split that may be unreadable, in each process, before the run stops."""

    crop: Literal["random-resized", "pad"] = "random-resized"
    """Training crop: a random part resized to `image_size` (the paper's), or a shift by up to `crop_padding` pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area that a random-resized crop takes: least, most."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width to height of a random-resized crop: least, most."""
    crop_padding: int = 4
    """Black pixels on each side of the image for crop=pad."""
    interpolation: Literal["random", "nearest", "bilinear", "bicubic", "lanczos"] = "random"
    """Resampling in training; random draws bilinear or bicubic for each image."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    """RandAugment (or another policy) in timm's notation; empty: none."""
    augment_on: Literal["workers", "device"] = "workers"
    """Where training images are cropped, flipped and changed by `auto_augment`: by the processes that read them, or on
    the training device, with the same pixels. `device` keeps the whole split in the device's memory and needs images of
    one size: for small images, where a GPU waits for the processes."""
    batch_policy: Literal["", "rand", "trivial"] = ""
    """torchvision's RandAugment or TrivialAugmentWide, run by the workers on parts of a batch; empty: none. For small
    images, where `auto_augment`, image by image, leaves the device waiting; leave that empty then."""
    batch_policy_draws: int = 8
    """Parts of a batch, each with its own draw of `batch_policy`: more are more varied and slower."""
    color_jitter: float = 0.0
    """Strength of brightness, contrast and saturation changes; used where `auto_augment` is empty."""
    erasing: float = 0.25
    """Probability that a rectangle of an image is erased."""
    erasing_mode: Literal["pixel", "color", "constant"] = "pixel"
    """Fill of an erased rectangle: noise for each pixel, one random colour, or the mean colour."""
    mixup: float = 0.8
    """Alpha of mixup; 0: none."""
    cutmix: float = 1.0
    """Alpha of cutmix; 0: none."""
    mixup_prob: float = 1.0
    """Probability that a group of images is mixed at all."""
    mixup_switch_prob: float = 0.5
    """Probability of cutmix rather than mixup where both are on."""
    mixup_group: int = 256
    """Images of one step that share one draw of mixup or cutmix, whatever the number of processes. The paper's runs of
    S drew once in each of 8 processes of 256 images."""

    eval_interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    """Resampling in evaluation."""
    eval_crop: Literal["center", "squash", "border"] = "center"
    """How an image of another shape is fit in evaluation: its middle is cut out, it is distorted, or it is padded."""
    crop_pct: float = 0.875
    """Share of the resized image's side that the crop of the evaluation keeps."""

    def __post_init__(self) -> None:
        for name in _TUPLES:
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        _check(self)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def mixes(self) -> bool:
        """Whether mixup or cutmix is on: targets are then one probability a class."""
        return self.mixup_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


_TUPLES = ("image_size", "mean", "std", "crop_scale", "crop_ratio")
_PROBABILITIES = ("hflip", "erasing", "mixup_prob", "mixup_switch_prob")
_LOWEST = {
    "batch_size": 1,
    "workers": 0,
    "prefetch": 1,
    "max_broken": 0,
    "crop_padding": 0,
    "batch_policy_draws": 1,
    "color_jitter": 0,
    "mixup": 0,
    "cutmix": 0,
    "mixup_group": 2,
}
_CHOICES = {
    "crop": ("random-resized", "pad"),
    "interpolation": ("random", "nearest", "bilinear", "bicubic", "lanczos"),
    "eval_interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "eval_crop": ("center", "squash", "border"),
    "erasing_mode": ("pixel", "color", "constant"),
    "augment_on": ("workers", "device"),
    "batch_policy": ("", "rand", "trivial"),
}


def _check(config: DataConfig) -> None:
    for name, choices in _CHOICES.items():
        _require(getattr(config, name) in choices, config, name, f"one of {', '.join(choices)}")
    for name in _PROBABILITIES:
        _require(0 <= getattr(config, name) <= 1, config, name, "a probability, 0 to 1")
    for name, lowest in _LOWEST.items():
        value = getattr(config, name)
        _require(value is None or value >= lowest, config, name, f"at least {lowest}")
    size = config.size
    _require(
        len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size),
        config,
        "image_size",
        "a positive number of pixels, or (height, width)",
    )
    _require(0 < config.crop_pct <= 1, config, "crop_pct", "above 0 and at most 1")
    for name in ("mean", "std"):
        value = getattr(config, name)
        _require(len(value) == 3 and all(math.isfinite(part) for part in value), config, name, "three numbers")
    _require(min(config.std) > 0, config, "std", "above 0 in every channel")
    for name in ("crop_scale", "crop_ratio"):
        value = getattr(config, name)
        _require(len(value) == 2 and 0 < value[0] <= value[1], config, name, "two positive numbers, least and most")
    _require(config.crop_scale[1] <= 1, config, "crop_scale", "at most the whole image, 1")


def _require(condition: bool, config: DataConfig, name: str, expected: str) -> None:
    if not condition:
        raise ConfigError(f"data.{name} is {getattr(config, name)!r}; expected {expected}")
