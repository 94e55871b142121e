"""The configuration of the data: which images, which size, how they are augmented and read."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sequencer2d.choices import Orientation
from sequencer2d.data.images import Decoding, background_color
from sequencer2d.data.packed.fetching import Patience
from sequencer2d.data.packed.source import Streaming
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.input_spec import IMAGENET_MEAN, IMAGENET_STD, CropMode, InputSpec, Interpolation
from sequencer2d.ranges import Checked, Probability, Range, Text


@dataclass(frozen=True)
class DataConfig(Checked):
    """Images for training and evaluation. The defaults are the paper's ImageNet recipe (section 4.1).

    A field out of its range raises `ConfigError`.
    """

    section: ClassVar[str] = "data."

    source: Annotated[str, Text(empty=False, path=True)] = "folder"
    """`folder` (`root/<split>/<class>/*`), `digits`, `wds:<shards>.tar`, `hfds:<name>`, `torch:<name>`, a path, or the
    address of packed shards, `https://…`, `s3://…` or `file://…`."""
    root: Annotated[str, Text(path=True)] = ""
    """The folder of the images; shards and data sets by name are looked for in it."""
    train_split: str = "train"
    val_split: str = "val"
    """Split to evaluate on. A folder may also call it validation or valid; without one of these, test is taken."""
    val_fraction: Annotated[float, Range(at_least=0, below=1)] = 0.0
    """Share of each class of `train_split` that is held out and takes the place of `val_split`, for data without such a
    split; 0: none is held out. Which images these are depends on their names and on `val_seed`."""
    val_seed: Annotated[int, Range(at_least=0, at_most=2**63 - 1)] = 0
    """Another seed holds out other images."""
    download: bool = False
    """Let `hfds:` and `torch:` fetch what is not there. Nothing is ever downloaded without it."""
    orientation: Orientation = "upright"
    """upright: photos are turned as their EXIF orientation says, as people see them; stored: pixels as they lie in the
    file, as torchvision and timm read them and as published accuracies mean it."""
    background: Annotated[str, Text(empty=False)] = "white"
    """Color behind transparent pixels, a CSS name or #rrggbb; `none` drops transparency, as torchvision and timm do."""
    image_size: Annotated[int | tuple[int, int], Range(at_least=1, at_most=8192, unit="pixels")] = 224
    """Pixels of a side, or (height, width). task=detection: the shorter and the longer side, at most, in any order."""
    mean: Annotated[tuple[float, float, float], Range(at_least=-100, at_most=100)] = IMAGENET_MEAN
    """Mean of the red, green and blue channels, which run from 0 to 1."""
    std: Annotated[tuple[float, float, float], Range(above=0, at_most=100)] = IMAGENET_STD
    """Standard deviation of the channels, which run from 0 to 1."""

    batch_size: Annotated[int, Range(at_least=1, at_most=2**20, unit="images")] = 1024
    """Images of one optimizer step, over all processes."""
    workers: Annotated[int | None, Range(at_least=0, at_most=1024)] = None
    """Processes that read images, for each training process; 0 reads in the training process itself; none: one for
    each CPU core that falls to it, at most 16. Results do not depend on it."""
    prefetch: Annotated[int, Range(at_least=1, at_most=1024, unit="batches")] = 2
    """Batches that each worker holds ready."""
    cache: bool = False
    """Keep every image decoded in memory (height · width · 3 bytes each): for small data sets."""
    shuffle_shards: Annotated[int, Range(at_least=1, at_most=2**20, unit="shards")] = 16
    """Packed shards whose images are shuffled among each other: so many are read at a time."""
    shard_cache: Annotated[str, Text(path=True)] = ""
    """Folder for shards that are fetched from an address, on a disk of this host; empty: the user's cache folder."""
    shard_cache_gb: Annotated[float, Range(above=0, at_most=1_000_000, unit="GB")] = 64.0
    """Space that fetched shards take at most, on each host; the least recently used ones make room. 1 GB: 10⁹ bytes."""
    fetch_timeout_s: Annotated[float, Range(above=0, at_most=86_400, unit="s")] = 30.0
    """How long a server may send nothing before the attempt is given up."""
    fetch_retries: Annotated[int, Range(at_least=0, at_most=1000)] = 5
    """Further attempts to fetch a shard, after 0.5, 1, 2, … s and at most 30 s, before the run stops."""
    max_broken: Annotated[int, Range(at_least=0, at_most=1_000_000_000, unit="images")] = 20
    """Images of a split that may be unreadable, in each process, before the run stops."""

    crop: Literal["random-resized", "pad"] = "random-resized"
    """Training crop: a random part resized to `image_size` (the paper's), or a shift by up to `crop_padding` pixels."""
    crop_scale: Annotated[tuple[float, float], Range(above=0, at_most=1)] = (0.08, 1.0)
    """Share of the image's area that a random-resized crop takes: least, most."""
    crop_ratio: Annotated[tuple[float, float], Range(at_least=0.001, at_most=1000)] = (3 / 4, 4 / 3)
    """Width to height of a random-resized crop: least, most."""
    crop_padding: Annotated[int, Range(at_least=0, at_most=8192, unit="pixels")] = 4
    """Black pixels on each side of the image for crop=pad."""
    interpolation: Literal["random", Interpolation] = "random"
    """Resampling in training; random draws bilinear or bicubic for each image."""
    resampler: Literal["pillow", "torch"] = "pillow"
    """What resizes the crop in training: Pillow, or torch, whose antialiased uint8 kernels take less time. Its values
    are Pillow's within 2 of 255, but Pillow 13 resizes some tall crops in another order, which differs by more."""
    hflip: Probability = 0.5
    """Probability of a horizontal flip."""
    auto_augment: str = "rand-m9-mstd0.5-inc1"
    """RandAugment (or another policy) in timm's notation; empty: none."""
    augment_on: Literal["workers", "device", "workers+device"] = "workers"
    """Where training images are cropped, flipped and changed by `auto_augment`: by the processes that read them, or on
    the training device, with the same pixels. `device` keeps the whole split in the device's memory and needs images of
    one size: for small images, where a GPU waits for the processes. `workers+device`: the processes read, crop and
    flip, and the device runs `auto_augment`: for photos, where cores are few."""
    batch_policy: Literal["", "rand", "trivial"] = ""
    """torchvision's RandAugment or TrivialAugmentWide, run by the workers on parts of a batch; empty: none. For small
    images, where `auto_augment`, image by image, leaves the device waiting; leave that empty then."""
    batch_policy_draws: Annotated[int, Range(at_least=1, at_most=2**20)] = 8
    """Parts of a batch, each with its own draw of `batch_policy`: more are more varied and slower."""
    color_jitter: Annotated[float, Range(at_least=0, at_most=100)] = 0.0
    """Strength of brightness, contrast and saturation changes; used where `auto_augment` is empty."""
    erasing: Probability = 0.25
    """Probability that a rectangle of an image is erased (timm's random erasing, also the paper's cutout)."""
    erasing_mode: Literal["pixel", "color", "constant"] = "pixel"
    """Fill of an erased rectangle: noise for each pixel, one random color, or the mean color."""
    mixup: Annotated[float, Range(at_least=0, at_most=1000)] = 0.8
    """Alpha of mixup; 0: none."""
    cutmix: Annotated[float, Range(at_least=0, at_most=1000)] = 1.0
    """Alpha of cutmix; 0: none."""
    mixup_prob: Probability = 1.0
    """Probability that a group of images is mixed at all."""
    mixup_switch_prob: Probability = 0.5
    """Probability of cutmix rather than mixup where both are on."""
    mixup_group: Annotated[int, Range(at_least=2, at_most=2**20, unit="images")] = 256
    """Images of one step that share one draw of mixup or cutmix, whatever the number of processes. The paper's runs of
    S drew once in each of 8 processes of 256 images."""

    short_sides: Annotated[tuple[int, ...], Range(at_least=1, at_most=8192, unit="pixels")] = ()
    """task=detection: shorter sides of training images, of which each draws one; empty: that of `image_size`."""
    scale_jitter: Annotated[tuple[float, float], Range(above=0, at_most=100)] = (0.5, 2.0)
    """task=segmentation: factor on an image that just covers `image_size`, before it is cropped: least, most."""
    class_limit: Annotated[float, Range(above=0, at_most=1)] = 0.75
    """task=segmentation: share of a crop that one class takes, at most; 10 crops are tried. 1: the first is taken."""
    ignored_labels: Annotated[tuple[int, ...], Range(at_least=0, at_most=65535)] = (255,)
    """task=segmentation: values in a folder's masks that are not scored. Known data sets have their own."""
    reduce_zero: bool = False
    """task=segmentation: 0 in a folder's masks is not scored, and value k is class k - 1 (ADE20K)."""

    photometric_distortion: bool = False
    """task=segmentation: change brightness, contrast, saturation and hue of training images as mmsegmentation does."""
    checked_masks: Annotated[int, Range(at_least=0, at_most=1_000_000_000)] = 512
    """task=segmentation: masks of a split, evenly spread, that are checked before the run begins. One of the others
    that does not fit counts as an image that cannot be read (`max_broken`)."""

    eval_interpolation: Interpolation = "bicubic"
    """Resampling in evaluation."""
    eval_crop: CropMode = "center"
    """How an image of another shape is fit in evaluation: its middle is cut out, it is distorted, or it is padded."""
    crop_pct: Annotated[float, Range(above=0, at_most=1)] = 0.875
    """Share of the resized image's side that the crop of the evaluation keeps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            background_color(self.background)
        except ValueError:
            raise ConfigError(
                f"data.background must be a color such as white or #808080, or none, got {self.background[:50]!r}"
            ) from None
        if self.val_fraction and self.train_split == self.val_split:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction:g} holds images of data.train_split out and calls them "
                f"data.val_split, but both are {self.train_split!r}; give data.val_split another name, such as held-out"
            )
        for name in ("crop_scale", "crop_ratio", "scale_jitter"):
            least, most = getattr(self, name)
            if least > most:
                raise ConfigError(f"data.{name} must be the least and the most, in this order, got {least:g}, {most:g}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def input_spec(self) -> InputSpec:
        """What the evaluation makes of images, as a model's description says it."""
        return InputSpec(
            size=self.size,
            mean=self.mean,
            std=self.std,
            interpolation=self.eval_interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.eval_crop,
        )

    @property
    def decoding(self) -> Decoding:
        """How image files become pixels."""
        return Decoding(self.orientation, background_color(self.background))

    @property
    def streaming(self) -> Streaming:
        """How packed shards are fetched and kept."""
        return Streaming(
            cache=self.shard_cache,
            cache_bytes=int(self.shard_cache_gb * 1e9),
            mixed=self.shuffle_shards,
            patience=Patience(self.fetch_timeout_s, self.fetch_retries),
        )

    @property
    def mixes(self) -> bool:
        """Whether mixup or cutmix is on: targets are then one probability a class."""
        return self.mixup_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


def require_pairs(images: int) -> None:
    """Raise `ConfigError` unless a process's batch of `images` images can be paired for mixup and cutmix."""
    if images % 2:
        raise ConfigError(
            f"mixup and cutmix pair the images of a batch, which has {images} of them in each process; choose an even "
            "number with data.batch_size, or set data.mixup=0 data.cutmix=0"
        )


def fields_of_input(spec: InputSpec) -> dict[str, Any]:
    """Fields of a `DataConfig` that prepare images as a model takes them: size, mean, std, resampling, crop.

    Raises:
        InputError: the model takes no RGB images.
    """
    if spec.in_chans != 3:
        raise InputError(f"the model takes images of {spec.in_chans} channels; image files are read as RGB, 3 channels")
    return {
        "image_size": spec.size,
        "mean": spec.mean,
        "std": spec.std,
        "eval_interpolation": spec.interpolation,
        "eval_crop": spec.crop_mode,
        "crop_pct": spec.crop_pct,
    }
