"""A model and images → what the model finds in each image."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sequencer2d.data.config import DataConfig
from sequencer2d.data.given import GivenImage, each_image, open_given
from sequencer2d.data.images import BrokenImageError, decode
from sequencer2d.data.normalization import normalize
from sequencer2d.data.words import imagenet_wnids, wordnet_words
from sequencer2d.tasks import CLASSIFICATION, Task


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image, or why the image could not be read."""

    path: str
    found: Any = None
    """The task's `Finding`, for classification `tasks.classification.Guesses`; None if the image could not be read."""
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"path": self.path, **({"error": self.error} if self.error else self.found.to_dict())}


def predict(
    model: nn.Module,
    images: GivenImage | Iterable[GivenImage],
    config: DataConfig,
    task: Task = CLASSIFICATION,
    *,
    class_names: Sequence[str],
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
    top_k: int | None = None,
    threshold: float | None = None,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Predict images in their order; one that cannot be read gives its error and does not stop the others.

    Args:
        model: normalized images (B, 3, H, W) → the task's outputs. It is moved to `device` and put in evaluation mode.
        images: one or many: paths, images of Pillow's, arrays or tensors; see `data.given.GivenImage`.
        config: decoding, size, mean, std, resampling and crop of the images; see `Subject.data`.
        task: what the model was trained for.
        class_names: name of each output of the model.
        device: where the model runs.
        amp_dtype: autocast to this dtype; none: the model's own.
        top_k: classes or objects per image, at most; none: the task's own number.
        threshold: least probability, share or score of what is found, 0 to 1; none: the task's own.
        batch_size: images in one forward pass, at most; images of different sizes take different passes.

    Raises:
        InputError: an array or tensor that is no image.
        NumericalError: outputs that are not finite.
    """
    device = torch.device(device)
    model = model.to(device).eval()
    transform = task.samples.eval_transform(config)
    most = task.top_k if top_k is None else top_k
    least = task.threshold if threshold is None else threshold

    def forward(*arguments: Any) -> Any:
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            return model(*arguments)

    def find(pixels: torch.Tensor, sizes: list[tuple[int, int]]) -> list[Any]:
        outputs = task.infer(forward, normalize(pixels, config.mean, config.std, device=device), None)
        found = task.decode(outputs, sizes, class_names, most)
        return [finding.above(least) for finding in found] if least else found

    for path, found, error in for_each(images, config, transform, find, batch_size):
        yield Prediction(path, found, error)


def for_each(
    images: GivenImage | Iterable[GivenImage],
    config: DataConfig,
    transform: Callable[[Image.Image, Any], tuple[np.ndarray, Any]],
    find: Callable[[torch.Tensor, list[tuple[int, int]]], Sequence[Any]],
    batch_size: int,
) -> Iterator[tuple[str, Any, str | None]]:
    """Read images, and apply a function to batches of those that can be read.

    Args:
        images: as for `predict`.
        config: says how they are decoded.
        transform: image → pixels uint8 (H, W, 3) as the model takes them.
        find: pixels uint8 (B, 3, H, W) and each image's own (height, width) → what was found in each.
        batch_size: images in one call of `find`, at most; images of different sizes take different calls.

    Yields:
        (path, what was found, None) or (path, None, why it cannot be read), in the order of the images.
    """

    def read(given: GivenImage) -> Readable | str:
        try:
            image = open_given(given, config.decoding)
        except BrokenImageError as error:
            return str(error)
        return Readable(transform(image, None)[0], (image.height, image.width))

    def apply(group: list[Readable]) -> Sequence[Any]:
        pixels = torch.from_numpy(np.stack([image.pixels for image in group])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return find(pixels, [image.size for image in group])

    iterator = each_image(images)
    while batch := list(itertools.islice(iterator, batch_size)):
        read_images = [read(image) for _, image in batch]
        readable = [image for image in read_images if isinstance(image, Readable)]
        groups = [list(group) for _, group in itertools.groupby(readable, key=lambda image: image.pixels.shape)]
        found = iter([finding for group in groups for finding in apply(group)])
        for (path, _), image in zip(batch, read_images, strict=True):
            yield (path, None, image) if isinstance(image, str) else (path, next(found), None)


@dataclass(frozen=True)
class Readable:
    """An image that could be read: pixels uint8 (H, W, 3) as the model takes them, and the file's (height, width)."""

    pixels: np.ndarray
    size: tuple[int, int]


def picture_of(prediction: Prediction, config: DataConfig) -> Image.Image:
    """Read the image of a prediction again and draw what was found in it. Raises `BrokenImageError` if it is gone."""
    picture: Image.Image = prediction.found.draw(decode(prediction.path, config.decoding))
    return picture


def class_names_of(model: nn.Module) -> tuple[str, ...]:
    """What people read: the checkpoint's words for its classes, or their names; ImageNet's for 1000; or "class 7"."""
    cfg: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    if names := cfg.get("label_names"):
        words = cfg.get("label_descriptions") or {}
        return tuple(words.get(name, name) for name in names)
    count = int(getattr(model, "num_classes", 0))
    if count == 1000:
        words = wordnet_words()
        return tuple(words[name] for name in imagenet_wnids())
    return tuple(f"class {index}" for index in range(count))
