"""One level of a feature pyramid: a stage's map, brought to the level's stride. Maps are NCHW (B, C, H, W)."""

import itertools
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.nn.blocks import NORM_EPS
from sequencer2d.nn.embed import is_recorded, pad_to_multiple


def doublings(factor: Fraction) -> int | None:
    """Return k where `factor` is 2**k, k of any sign; otherwise None."""
    larger, smaller = max(factor.as_integer_ratio()), min(factor.as_integer_ratio())
    if smaller != 1 or larger & (larger - 1):
        return None
    steps = larger.bit_length() - 1
    return steps if factor >= 1 else -steps


def crop_map(x_BCHW: Tensor, height: int, width: int) -> Tensor:
    """The first `height` rows and `width` columns of a map that has as many or more."""
    if is_recorded():
        # Whether a slice stays within the map is a question that torch.export cannot answer for all sizes at once.
        x_BCHW = x_BCHW.index_select(2, torch.arange(height, device=x_BCHW.device))
        return x_BCHW.index_select(3, torch.arange(width, device=x_BCHW.device))
    return x_BCHW[:, :, :height, :width]


class MaxPool(nn.Module):
    """The maximum of every patch of `size`×`size`, those cut off at the edge included: (B, C, ⌈H/size⌉, ⌈W/size⌉)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # torch's ceil_mode ties an exported program to the sizes whose remainder is that of the example.
        return F.max_pool2d(pad_to_multiple(x_BCHW, self.size, value=float("-inf")), self.size)

    def extra_repr(self) -> str:
        return f"size={self.size}"


class PyramidLevel(nn.Module):
    """Norm, resizing by a power of two, and where asked for a projection.

    Finer maps come from transposed convolutions, each by 2, with a norm and GELU between two of them; coarser ones from
    max-pooling, without parameters. XCiT and BEiT prepare their maps for Semantic FPN and Mask R-CNN like this. The
    projection is that of ViTDet's simple feature pyramid (Li et al. 2022, arXiv:2203.16527): convolutions 1×1 and 3×3
    without bias, each followed by a norm. All norms are LayerNorms over the channels.

    Args:
        channels: C of the stage's map.
        steps: how often the map's resolution is doubled; below 0, halved.
        dim: channels of the level; None keeps C and leaves the projection out.
        normed: the map comes normalized, so the level does not start with a norm.

    Shape: (B, C, H, W) → (B, dim or C, height, width): of the resized map, which has ⌈H · 2**steps⌉ rows, the part at
    the top left.
    """

    def __init__(self, channels: int, steps: int, dim: int | None = None, normed: bool = False) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity() if normed else _norm(channels)
        self.resize: nn.Module = nn.Identity()
        if steps > 0:
            self.resize = _enlarge(channels, steps)
        elif steps < 0:
            self.resize = MaxPool(2**-steps)
        self.proj: nn.Module = nn.Identity() if dim is None else _project(channels, dim)

    def forward(self, x_BCHW: Tensor, height: int, width: int) -> Tensor:
        return self.proj(crop_map(self.resize(self.norm(x_BCHW)), height, width)).contiguous()


def _norm(channels: int) -> nn.Module:
    from timm.layers import LayerNorm2d  # timm takes seconds, and classifiers have no pyramid

    return LayerNorm2d(channels, eps=NORM_EPS)  # type: ignore[no-any-return]


def _enlarge(channels: int, steps: int) -> nn.Sequential:
    convolutions = [nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2) for _ in range(steps)]
    between = [(_norm(channels), nn.GELU()) for _ in convolutions[1:]]
    layers = [(convolutions[0],), *((*pair, conv) for pair, conv in zip(between, convolutions[1:], strict=True))]
    return nn.Sequential(*itertools.chain(*layers))


def _project(channels: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, dim, kernel_size=1, bias=False),
        _norm(dim),
        nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False),
        _norm(dim),
    )
