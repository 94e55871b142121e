"""UPerNet (Xiao et al. 2018) without its auxiliary head: pyramid pooling, a feature pyramid, and all levels joined.

Layers and initialization are those of mmsegmentation's `UPerHead` with 512 channels, as Swin and ConvNeXt configure it,
but for batch norm, which is not synchronized between processes. The names of the parameters are ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sequencer2d.dense.parts import check_description, check_maps, convolution, new_classifier, resize
from sequencer2d.errors import InputError

CHANNELS = 512
POOLED = (1, 2, 3, 6)
"""Sides of the grids into which the coarsest map is averaged."""


class PyramidPooling(nn.Module):
    """The coarsest map and its averages over grids of several sides, joined: (B, C, H, W) → (B, channels, H, W)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.pooled = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), convolution(in_channels, channels, 1)) for side in POOLED
        )
        self.joined = convolution(in_channels + len(POOLED) * channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = [resize(part(x), x.shape[2:]) for part in self.pooled]
        return self.joined(torch.cat([x, *parts], 1))


class UPerNet(nn.Module):
    """Feature maps of a backbone → logits of each pixel of the finest map.

    Args:
        in_channels: channels of each map, the finest first, as `feature_info.channels()` gives them.
        strides: of each map; they are not used, since maps are resized by their sizes.
        num_classes: channels of the logits.
        channels: of the decoder's maps.

    Raises:
        ConfigError: no maps, another number of strides, or no classes.
    """

    def __init__(
        self, in_channels: Sequence[int], strides: Sequence[float], num_classes: int, channels: int = CHANNELS
    ) -> None:
        super().__init__()
        check_description(in_channels, strides, num_classes)
        self.in_channels = tuple(in_channels)
        *finer, coarsest = in_channels
        self.pooling = PyramidPooling(coarsest, channels)
        self.lateral = nn.ModuleList(convolution(width, channels, 1) for width in finer)
        self.output = nn.ModuleList(convolution(channels, channels, 3) for _ in finer)
        self.joined = convolution(len(in_channels) * channels, channels, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = new_classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) → logits (B, num_classes, H_0, W_0).

        Raises:
            InputError: other maps, or training on one image: batch norm has one value there, the image's average.
        """
        check_maps(maps, self.in_channels)
        *finer, coarsest = maps
        if self.training and coarsest.shape[0] < 2:
            raise InputError(
                "UPerNet trains on two images or more in each process, for its batch norm after averaging: raise "
                "data.batch_size, lower optimizer.accumulation, or take model.decoder=semantic_fpn"
            )
        merged = [*(layer(x) for layer, x in zip(self.lateral, finer, strict=True)), self.pooling(coarsest)]
        for i in reversed(range(len(finer))):
            merged[i] = merged[i] + resize(merged[i + 1], merged[i].shape[2:])
        levels = [*(layer(x) for layer, x in zip(self.output, merged, strict=False)), merged[-1]]
        joined = torch.cat([resize(x, levels[0].shape[2:]) for x in levels], 1)
        return self.classifier(self.dropout(self.joined(joined)))
