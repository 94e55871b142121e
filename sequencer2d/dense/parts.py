"""What the decoders of segmentation share: layers, resizing, and checks of the maps below them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequencer2d.errors import ConfigError, InputError

_CLASSIFIER_STD = 0.01


def convolution(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    """A convolution without bias that keeps the size, batch norm and ReLU."""
    layer = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())


def new_classifier(channels: int, num_classes: int) -> nn.Conv2d:
    """A 1×1 convolution to the classes, initialized as mmsegmentation's."""
    layer = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(layer.weight, std=_CLASSIFIER_STD)
    if layer.bias is not None:  # for type checkers
        nn.init.zeros_(layer.bias)
    return layer


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Maps (B, C, H, W) in another size, bilinearly; the same tensor where it has that size."""
    return x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear")


def check_description(in_channels: Sequence[int], strides: Sequence[float], num_classes: int) -> None:
    """Raise `ConfigError` if there are no maps or no classes, or if maps and strides differ in number."""
    if not in_channels or len(in_channels) != len(strides):
        raise ConfigError(
            f"{len(in_channels)} maps and {len(strides)} strides were given; give channels and stride of each map"
        )
    if num_classes < 1:
        raise ConfigError(f"num_classes={num_classes}; a decoder needs at least one class")


def check_maps(maps: Sequence[Tensor], in_channels: tuple[int, ...]) -> None:
    """Raise `InputError` unless the maps (NCHW) have these channels."""
    found = tuple(x.shape[1] for x in maps)
    if found != in_channels:
        raise InputError(
            f"the decoder was made for maps of {listed(in_channels)} channels (NCHW) and got {listed(found)}"
        )


def listed(values: Sequence[float]) -> str:
    """Numbers as text for a message."""
    return ", ".join(f"{value:g}" for value in values)
