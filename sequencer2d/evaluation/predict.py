"""A model and image files → the most probable classes of each image."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sequencer2d.data.batches import normalize
from sequencer2d.data.config import DataConfig
from sequencer2d.data.images import BrokenImageError, Decoding, decode
from sequencer2d.data.transforms import Transform, eval_transform
from sequencer2d.errors import InputError
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.tasks.finite import require_probabilities


@dataclass(frozen=True)
class Guess:
    """One class and its probability (0 to 1)."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image: the most probable classes first, or why the image could not be read."""

    path: str
    guesses: tuple[Guess, ...] = field(default=())
    error: str | None = None


def predict(
    model: nn.Module,
    paths: Iterable[str | os.PathLike[str]],
    config: DataConfig,
    *,
    class_names: Sequence[str],
    device: torch.device | str = "cpu",
    amp_dtype: torch.dtype | None = None,
    top_k: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Predict the classes of image files, in their order; one that cannot be read gives its error and does not stop.

    Args:
        model: images (B, 3, H, W) → logits (B, classes). It is moved to `device` and put in evaluation mode.
        paths: image files.
        config: decoding, size, mean, std, resampling and crop of the images; see `input_fields`.
        class_names: name of each output of the model.
        device: where the model runs.
        amp_dtype: autocast to this dtype; none: the model's own.
        top_k: classes per image, at most.
        batch_size: images in one forward pass.
    """
    device = torch.device(device)
    model = model.to(device).eval()
    transform = eval_transform(config)
    iterator = iter(paths)
    while batch := list(itertools.islice(iterator, batch_size)):
        read = [_read(path, transform, config.decoding) for path in batch]
        pixels = [item for item in read if isinstance(item, np.ndarray)]
        probabilities = iter(_probabilities(model, pixels, config, device, amp_dtype))
        for path, item in zip(batch, read, strict=True):
            if isinstance(item, str):
                yield Prediction(str(path), error=item)
            else:
                yield Prediction(str(path), guesses=_guesses(next(probabilities), class_names, top_k))


def class_names_of(model: Sequencer2D) -> tuple[str, ...]:
    """The names that the model's checkpoint gave; ImageNet's for 1000 outputs without names; else "class 7"."""
    if names := model.pretrained_cfg.get("label_names"):
        return tuple(names)
    if model.num_classes == 1000:
        from timm.data import ImageNetInfo

        info = ImageNetInfo("imagenet-1k")
        return tuple(info.index_to_description(index) for index in range(1000))
    return tuple(f"class {index}" for index in range(model.num_classes))


def input_fields(model: Sequencer2D) -> dict[str, Any]:
    """Fields of a `DataConfig` for the images that the model was made for: size, mean, std, resampling, crop.

    Raises:
        InputError: the model takes no RGB images.
    """
    cfg = model.pretrained_cfg
    if model.in_chans != 3:
        raise InputError(
            f"the model takes images of {model.in_chans} channels; image files are read as RGB, 3 channels"
        )
    return {
        "image_size": tuple(cfg["input_size"][1:]),
        "mean": tuple(cfg["mean"]),
        "std": tuple(cfg["std"]),
        "eval_interpolation": cfg["interpolation"],
        "eval_crop": cfg.get("crop_mode", "center"),
        "crop_pct": cfg["crop_pct"],
    }


def _read(path: str | os.PathLike[str], transform: Transform, decoding: Decoding) -> np.ndarray | str:
    try:
        return transform(decode(path, decoding))
    except BrokenImageError as error:
        return str(error)


@torch.inference_mode()
def _probabilities(
    model: nn.Module,
    pixels: list[np.ndarray],
    config: DataConfig,
    device: torch.device,
    amp_dtype: torch.dtype | None,
) -> Tensor:
    """Images uint8 (H, W, 3) → probabilities (B, classes), fp32 on the CPU."""
    if not pixels:
        return torch.empty(0, 0)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        logits = model(normalize(images, config.mean, config.std, device=device))
    return require_probabilities(logits.float()).softmax(dim=-1).cpu()


def _guesses(probabilities: Tensor, class_names: Sequence[str], top_k: int) -> tuple[Guess, ...]:
    values, indices = probabilities.topk(min(top_k, len(probabilities)))
    return tuple(
        Guess(index, class_names[index], value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)
    )
