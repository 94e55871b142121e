"""Images as a model is evaluated on them: resized, cropped, still 8 bits, before normalization.

Everything that changes images (corruptions, attacks, other sizes) starts here, so that it works on what the model sees.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from sequencer2d.data.classes import match
from sequencer2d.data.config import DataConfig
from sequencer2d.data.eval_transforms import eval_transform
from sequencer2d.data.finding import find_images
from sequencer2d.data.images import BrokenImageError, decode
from sequencer2d.data.sources import Source
from sequencer2d.data.transforms import train_transform
from sequencer2d.errors import ConfigError, DataError, InputError
from sequencer2d.evaluation.subject import Subject
from sequencer2d.seeds import keep_random_state, seed_image

logger = logging.getLogger(__name__)

MOST_ENLARGED = 8  # times, from which on an image shows resampling, not what a model sees

Progress = Callable[[int], None]
"""Called with the number of images that were done since the last call."""


class Batch(NamedTuple):
    """uint8 pixels (B, H, W, 3), targets (B,) and the indices of the images in their source (B,)."""

    pixels: np.ndarray
    targets: np.ndarray
    indices: np.ndarray


def choose(count: int, limit: int | None, seed: int = 0) -> np.ndarray:
    """Indices of at most `limit` of `count` images: a random sample, the same for the same seed, ascending."""
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))


def read_batches(
    source: Source, data: DataConfig, *, batch_size: int = 64, indices: Sequence[int] | np.ndarray | None = None
) -> Iterator[Batch]:
    """The images of a source as the evaluation crops them, in order.

    Raises:
        DataError: an image that cannot be read, by its path.
    """
    transform = eval_transform(data)
    chosen = np.arange(len(source)) if indices is None else np.asarray(indices)
    for start in range(0, len(chosen), batch_size):
        part = chosen[start : start + batch_size]
        pixels, targets = [], []
        for index in part:
            try:
                image, target = source[int(index)]
            except BrokenImageError as error:
                raise DataError(_broken(source.describe(int(index)), error)) from error
            pixels.append(np.asarray(transform(image)))
            targets.append(target)
        yield Batch(np.stack(pixels), np.asarray(targets), part)


def read_images(paths: Iterable[str | os.PathLike[str]], data: DataConfig, *, limit: int | None = None) -> np.ndarray:
    """Images without labels, uint8 (N, H, W, 3): files, or all below folders, at most `limit` of them at random.

    Raises:
        DataError: nothing there, or an image that cannot be read, by its path.
        InputError: an image too small for the model, see `check_photo`.
    """
    transform = eval_transform(data)
    return np.stack([_read(path, transform, data) for path in chosen_images(paths, limit)])


def chosen_images(paths: Iterable[str | os.PathLike[str]], limit: int | None = None) -> list[Path]:
    """The files that `read_images` reads. Raises `DataError` if nothing is there."""
    files = find_images(paths)
    return [files[index] for index in choose(len(files), limit)]


def truths_of(subject: Subject, files: Sequence[Path]) -> np.ndarray:
    """(N,) The subject's output for the class that the folder of each file names; -1 where it names none."""
    outputs = {name: index for index, name in enumerate(subject.class_names)} if subject.names_known else {}
    return np.asarray([outputs.get(path.parent.name, -1) for path in files])


def read_augmented(
    paths: Iterable[str | os.PathLike[str]], data: DataConfig, *, limit: int | None = None, seed: int = 0
) -> np.ndarray:
    """Images without labels as `read_images`, but augmented by timm's defaults for training.

    These are a random part of 8 to 100 % of the image, a flip, and brightness, contrast and saturation changed by up
    to 40 %. The same seed gives the same images. Raises the errors of `read_images`.
    """
    files = find_images(paths)
    config = replace(
        data, interpolation=data.eval_interpolation, crop="random-resized", crop_scale=(0.08, 1.0), hflip=0.5,
        auto_augment="", batch_policy="", color_jitter=0.4,
    )  # fmt: skip
    transform = train_transform(config)

    def augmented(index: int) -> np.ndarray:
        with keep_random_state():
            seed_image(seed, 0, index)
            return _read(files[index], transform, data)

    return np.stack([augmented(int(index)) for index in choose(len(files), limit)])


def normalized(pixels: np.ndarray | Tensor, subject: Subject) -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W), normalized, on the subject's device."""
    return normalize_unit(to_unit(pixels, subject.device), subject.data)


def to_unit(pixels: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) → float32 (B, 3, H, W) between 0 and 1, on `device`."""
    tensor = torch.from_numpy(np.array(pixels)) if isinstance(pixels, np.ndarray) else pixels
    return tensor.to(device).permute(0, 3, 1, 2).div(255).contiguous()


def normalize_unit(images: Tensor, data: DataConfig) -> Tensor:
    """Images between 0 and 1 (B, 3, H, W) as the model takes them; differentiable."""
    mean, std = (images.new_tensor(value).view(-1, 1, 1) for value in (data.mean, data.std))
    return (images - mean) / std


def match_classes(subject: Subject, source: Source, *, common_only: bool = False) -> np.ndarray:
    """The subject's output for each class of the source, −1 for classes to leave out.

    Names are compared where the subject's are known; without known names the two must have equally many classes, and
    numbers or the order decide, see `data.classes.match`.

    Args:
        subject: any classifier.
        source: images with labels.
        common_only: leave out classes of the source that the subject does not have, instead of refusing them.

    Raises:
        ConfigError: classes that do not match.
    """
    if not subject.names_known:
        if len(source.class_names) != len(subject.class_names):
            raise ConfigError(
                f"{subject.name} has {len(subject.class_names)} outputs without names, the images have "
                f"{len(source.class_names)} classes: evaluate on the data set that it was trained on"
            )
        classes = match(None, len(subject.class_names), source)
        if classes.remark not in subject.said:
            subject.said.add(classes.remark)
            logger.warning("%s: %s", subject.name, classes.remark)
        return classes.outputs
    outputs = {name: index for index, name in enumerate(subject.class_names)}
    unknown = [name for name in source.class_names if name not in outputs]
    if unknown and (not common_only or len(unknown) == len(source.class_names)):
        raise ConfigError(
            f"{len(unknown)} of the {len(source.class_names)} classes of the images are not among the "
            f"{len(outputs)} of {subject.name}: {', '.join(unknown[:5])}{'…' if len(unknown) > 5 else ''} "
            f"(it knows {', '.join(subject.class_names[:3])}…). "
            + (
                "Evaluate on data with its classes"
                if len(unknown) == len(source.class_names)
                else "Rename the folders, or leave those classes out with common_only (--common-classes)"
            )
        )
    return np.asarray([outputs.get(name, -1) for name in source.class_names])


def check_size(data: DataConfig, least: int, what: str) -> None:
    """Raise `InputError` if the images of `data` are smaller than `least` pixels along a side."""
    if min(data.size) < least:
        raise InputError(
            f"{what} needs images of at least {least}×{least} pixels, these are {data.size[0]}×{data.size[1]}: "
            "set a larger size (--image-size)"
        )


def check_photo(image: Image, data: DataConfig, name: str) -> None:
    """Raise `InputError` if an image would have to be enlarged eightfold or more."""
    least = min(data.size) // MOST_ENLARGED + 1
    if min(image.size) < least:
        raise InputError(
            f"{name} is too small: it has {image.height}×{image.width} pixels and would be enlarged to "
            f"{data.size[0]}×{data.size[1]}; give images of {least}×{least} or more, or a smaller --image-size"
        )


def _read(path: Path, transform: Callable[..., np.ndarray], data: DataConfig) -> np.ndarray:
    try:
        image = decode(path, data.decoding)
    except BrokenImageError as error:
        raise DataError(_broken(str(path), error)) from error
    check_photo(image, data, str(path))
    return np.asarray(transform(image))


def _broken(path: str, error: Exception) -> str:
    return f"cannot read the image {path} ({error}): repair it or take it out of the folder"
