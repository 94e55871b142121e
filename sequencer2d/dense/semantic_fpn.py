"""Semantic FPN (Kirillov et al. 2019), configured as PVT and PoolFormer do for ADE20K.

A feature pyramid network brings all maps of a backbone to one width and adds coarser maps to finer ones. The head
brings each map to the finest resolution, adds them up and classifies every pixel. Layers and initialization are those
of mmsegmentation's `FPN` and `FPNHead`, but for batch norm, which is not synchronized between processes. The names of
the parameters are ours.

Shapes: B images, level i has C_i channels and H_i × W_i pixels. Level 0 is the finest.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from sequencer2d.dense.parts import check_description, check_maps, convolution, listed, new_classifier, resize
from sequencer2d.errors import ConfigError, InputError

FPN_CHANNELS, HEAD_CHANNELS, DROPOUT = 256, 128, 0.1
"""The values of PVT, PoolFormer and mmsegmentation's base configuration."""


class FPN(nn.Module):
    """Feature pyramid network (Lin et al. 2017): maps of any widths → as many maps of one width, in the same sizes.

    A 1×1 convolution for each level, addition of each coarser map to the next finer one, resized by nearest neighbor,
    and a 3×3 convolution for each level. All have biases, and there is no norm and no activation.

    Args:
        in_channels: channels of each map, the finest first.
        channels: of each output.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = FPN_CHANNELS) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for layer in (*self.lateral, *self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B, C_i, H_i, W_i) → maps (B, channels, H_i, W_i)."""
        merged = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + F.interpolate(merged[i + 1], merged[i].shape[2:], mode="nearest")
        return [layer(x) for layer, x in zip(self.output, merged, strict=True)]


class SemanticFPNHead(nn.Module):
    """Maps of one width → logits of each pixel of the finest map.

    Level i passes through `max(1, log2(stride_i / stride_0))` repeats of a 3×3 convolution, batch norm and ReLU. After
    each repeat its map is doubled in size, unless its stride is that of level 0. The sum of all levels passes through
    dropout of whole channels and a 1×1 convolution.

    Args:
        in_channels: channels of every map.
        strides: pixels of the image for each pixel of a map, the finest first. Their ratios are powers of 2.
        num_classes: channels of the logits.
        channels: of the convolutions.
        dropout: probability that a channel of the sum is set to 0 in training.

    Raises:
        ConfigError: a stride that is not the first one times a power of 2.
    """

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[float],
        num_classes: int,
        channels: int = HEAD_CHANNELS,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_level(in_channels, channels, count) for count in _doublings(strides))
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = new_classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, in_channels, H_i, W_i) → logits (B, num_classes, H_0, W_0)."""
        first, *rest = [level(x) for level, x in zip(self.levels, maps, strict=True)]
        for x in rest:  # sizes differ by a pixel or two where those of the maps are not exact multiples
            first = first + resize(x, first.shape[2:])
        return self.classifier(self.dropout(first))


class SemanticFPN(nn.Module):
    """Feature maps of a backbone → logits of each pixel of the finest map: an `FPN` and a `SemanticFPNHead`.

    Args:
        in_channels: channels of each map, the finest first, as `feature_info.channels()` gives them.
        strides: of each map, as `feature_info.reduction()` gives them.
        num_classes: channels of the logits.

    Raises:
        ConfigError: no maps, another number of strides, no classes, or strides that `SemanticFPNHead` refuses.
    """

    def __init__(self, in_channels: Sequence[int], strides: Sequence[float], num_classes: int) -> None:
        super().__init__()
        check_description(in_channels, strides, num_classes)
        self.in_channels, self.strides, self.num_classes = tuple(in_channels), tuple(strides), num_classes
        self.fpn = FPN(in_channels)
        self.head = SemanticFPNHead(FPN_CHANNELS, strides, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) → logits (B, num_classes, H_0, W_0).

        Raises:
            InputError: other maps, or training on one image whose coarsest map is a single position: batch norm has one
                value there.
        """
        check_maps(maps, self.in_channels)
        if self.training and min(x.shape[0] * x.shape[2] * x.shape[3] for x in maps) < 2:
            raise InputError(
                "Semantic FPN trains on two images or more, or on larger ones: the coarsest map is a single position, "
                "too few for batch norm; raise data.batch_size or data.image_size"
            )
        return self.head(self.fpn(maps))


class Segmenter(nn.Module):
    """Images (B, C, H, W) → logits (B, classes, H, W): a backbone and a decoder.

    Images are padded with 0, the mean color, on the right and below until the coarsest stride divides them, so that the
    maps of all levels lie exactly above each other. The logits are resized to the padded images and cut back.

    Args:
        backbone: images → list of NCHW maps, with timm's `feature_info`; `create_model(name, features_only=True)`.
        num_classes: channels of the logits.
        decoder: (channels of the maps, their strides, number of classes) → what stands on the maps.
    """

    def __init__(self, backbone: Any, num_classes: int, decoder: Callable[..., nn.Module] = SemanticFPN) -> None:
        super().__init__()
        self.backbone = backbone
        info = backbone.feature_info
        self.decoder = decoder(info.channels(), info.reduction(), num_classes)
        self.divisor = math.ceil(max(info.reduction()))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        return resize(self.decoder(self.backbone(padded)), padded.shape[2:])[..., :height, :width]


def _level(in_channels: int, channels: int, doublings: int) -> nn.Sequential:
    repeats = max(1, doublings)
    layers: list[nn.Module] = []
    for index in range(repeats):
        layers.append(convolution(channels if index else in_channels, channels, 3))
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    return nn.Sequential(*layers)


def _doublings(strides: Sequence[float]) -> list[int]:
    """How often each level must double to reach the size of level 0."""
    counts = []
    for stride in strides:
        count = math.log2(stride / strides[0]) if stride > 0 else -1.0
        if count < 0 or not count.is_integer():
            raise ConfigError(
                f"strides {listed(strides)} do not fit: each must be the first one times 1, 2, 4 or another power of 2"
            )
        counts.append(int(count))
    return counts
