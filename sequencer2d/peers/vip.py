"""ViP, the Vision Permutator (Hou et al. 2021): linear layers over a segment of channels and all rows or columns."""

import itertools

from torch import Tensor, nn

from sequencer2d.errors import ConfigError, InputError
from sequencer2d.peers.base import check_size
from sequencer2d.peers.config import PeerConfig, ViPConfig
from sequencer2d.peers.weighted import Block, Convolution, WeightedMixer, WeightedNet

FIXED = "ViP's linear layers hold a weight for each row and column"


def mix_segments(x_BHWC: Tensor, linear: nn.Module, segments: int) -> Tensor:
    """Apply `linear` to the W·S numbers of each row and segment (G segments of S channels); the shape stays."""
    x_BHGWS = x_BHWC.unflatten(3, (segments, -1)).transpose(2, 3)
    mixed_BHGWS = linear(x_BHGWS.flatten(3)).unflatten(3, x_BHGWS.shape[3:])
    return mixed_BHGWS.transpose(2, 3).flatten(3)


class PermuteMLP(WeightedMixer):
    """ViP's mixer. Channels are cut into `segments` of S = C / segments.

    Along the height, the H·S numbers of one column and one segment, rows first, go through a linear layer C → C without
    bias; along the width, the W·S numbers of one row and one segment. Hence H = W = segments.

    Shape: (B, segments, segments, C) → the same.
    """

    def __init__(self, dim: int, segments: int) -> None:
        super().__init__(dim)
        self.segments = segments
        self.mlp_h = nn.Linear(dim, dim, bias=False)
        self.mlp_w = nn.Linear(dim, dim, bias=False)

    def mix_height(self, x_BHWC: Tensor) -> Tensor:
        return mix_segments(x_BHWC.transpose(1, 2), self.mlp_h, self.segments).transpose(1, 2)

    def mix_width(self, x_BHWC: Tensor) -> Tensor:
        return mix_segments(x_BHWC, self.mlp_w, self.segments)

    def extra_repr(self) -> str:
        return f"segments={self.segments}"


class ViP(WeightedNet):
    """The Vision Permutator. It takes images of one size, and has no position embedding.

    Shape: images (B, in_chans, *img_size) → logits (B, num_classes).

    Raises:
        ConfigError: sizes of which the mixers cannot be made.
        InputError: images of another shape or size.
    """

    config: ViPConfig

    def __init__(self, config: ViPConfig, variant: str = "") -> None:
        _check_grid(config)
        stages = [
            nn.Sequential(*(Block(dim, PermuteMLP(dim, segments), config.mlp_ratio, rate) for rate in rates))
            for dim, segments, rates in zip(config.dims, config.segments, config.drop_path_rates, strict=True)
        ]
        steps = zip(itertools.pairwise(config.dims), itertools.pairwise(config.segments), strict=True)
        between = [_transition(*dims, stride=grids[0] // grids[1]) for dims, grids in steps]
        patch = config.patch_size
        stem = Convolution(config.in_chans, config.dims[0], kernel_size=patch, stride=patch)
        reductions = [config.patch_size * config.segments[0] // segments for segments in config.segments]
        super().__init__(config, variant, stem, stages, between, reductions)

    def check(self, x_BCHW: Tensor) -> None:
        super().check(x_BCHW)
        check_size(x_BCHW, self.config.img_size, f"{FIXED}, so that it cannot change size; resize the images")

    def _resize(self, config: PeerConfig) -> None:
        if config.img_size != self.config.img_size:
            (height, width), (own, _) = config.img_size, self.config.img_size
            name = self.variant or "ViP"
            raise InputError(f"{name} takes images of {own}×{own} pixels only, not {height}×{width}: {FIXED}")


def _transition(dim: int, dim_out: int, stride: int) -> Convolution | None:
    """The convolution between two stages: none where neither the grid nor the channels change."""
    if stride == 1 and dim == dim_out:
        return None
    return Convolution(dim, dim_out, kernel_size=stride, stride=stride)


def _check_grid(config: ViPConfig) -> None:
    grid = tuple(side // config.patch_size for side in config.img_size)
    if grid != (config.segments[0],) * 2:
        side = config.patch_size * config.segments[0]
        height, width = config.img_size
        raise ConfigError(f"img_size={height}×{width}: this ViP takes {side}×{side} pixels only: {FIXED}")
    for dim, segments in zip(config.dims, config.segments, strict=True):
        if dim % segments:
            raise ConfigError(f"dims and segments: {dim} channels cannot be cut into {segments} equal segments")
    for before, after in itertools.pairwise(config.segments):
        if before not in (after, 2 * after):
            raise ConfigError(f"segments={config.segments}: each stage has as many as the one before, or half of them")
