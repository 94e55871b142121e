"""GFNet, the Global Filter Network (Rao et al. 2021): tokens are mixed by a learned filter in the frequency domain.

Tokens are maps (B, H, W, C) throughout. The filters and positions belong to one grid; `set_input_size` resamples them
for another as the authors do.
"""

import itertools
from collections.abc import Iterator
from typing import cast

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import ConfigError
from sequencer2d.nn.embed import check_images
from sequencer2d.peers.base import INIT_STD, Peer, check_size, resample_positions
from sequencer2d.peers.config import GFNetConfig, PeerConfig

NORM_EPS = 1e-6
Grid = tuple[int, int]


def resample_filter(weight: Tensor, grid: Grid) -> Tensor:
    """Resample a filter's half spectrum (h, w//2 + 1, C, 2) for a grid of `grid` tokens, bicubic, corners aligned."""
    channels = weight.shape[2]
    planes = weight.flatten(2).permute(2, 0, 1)[None]
    size = (grid[0], grid[1] // 2 + 1)
    planes = F.interpolate(planes.float(), size=size, mode="bicubic", align_corners=True)
    return planes[0].permute(1, 2, 0).unflatten(2, (channels, 2)).contiguous().to(weight.dtype)


class GlobalFilter(nn.Module):
    """2D FFT, product with a learned complex filter, inverse FFT, all with orthonormal scaling and at least in float32.

    Shape: (B, H, W, C) → (B, H, W, C), where (H, W) is `grid`. The parameter `complex_weight` (H, W//2 + 1, C, 2) holds
    real and imaginary parts of the half spectrum.
    """

    def __init__(self, dim: int, grid: Grid) -> None:
        super().__init__()
        self.grid = grid
        self.complex_weight = nn.Parameter(torch.randn(grid[0], grid[1] // 2 + 1, dim, 2) * INIT_STD)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        # cuFFT and MKL have no 16-bit transforms for most sizes, and sums over the grid need the precision.
        dtype = torch.promote_types(x_BHWC.dtype, torch.float32)
        spectrum = torch.fft.rfft2(x_BHWC.to(dtype), dim=(1, 2), norm="ortho")
        # Contiguous: a model in the memory format channels_last keeps this tensor of four axes in it, too.
        spectrum = spectrum * torch.view_as_complex(self.complex_weight.to(dtype).contiguous())
        return torch.fft.irfft2(spectrum, s=self.grid, dim=(1, 2), norm="ortho").to(x_BHWC.dtype)

    def resample(self, grid: Grid) -> None:
        """Fit the filter, in place, to another grid."""
        old = self.complex_weight
        self.complex_weight = nn.Parameter(resample_filter(old, grid), requires_grad=old.requires_grad)
        self.grid = grid

    def extra_repr(self) -> str:
        return "height={}, width={}".format(*self.grid)


class Block(nn.Module):
    """x + DropPath(gamma · MLP(LN(filter(LN(x))))): one residual for both; gamma only where `layer_scale` is given."""

    gamma: nn.Parameter | None

    def __init__(self, dim: int, grid: Grid, mlp_ratio: float, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.filter = GlobalFilter(dim, grid)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))
        self.drop_path = DropPath(drop_path)
        scale = None if layer_scale is None else nn.Parameter(torch.full((dim,), layer_scale))
        self.register_parameter("gamma", scale)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        branch = self.mlp(self.norm2(self.filter(self.norm1(x_BHWC))))
        return x_BHWC + self.drop_path(branch if self.gamma is None else self.gamma * branch)


class Patches(nn.Module):
    """A convolution whose kernel is its stride: (B, C, H, W) → (B, H', W', dim), contiguous."""

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.proj(x_BCHW).permute(0, 2, 3, 1).contiguous()


class GFNet(Peer):
    """GFNet of one stage (names "gfnet_s"), or a pyramid of stages ("gfnet_h_s") whose later ones halve the grid.

    Shape: images (B, in_chans, *img_size) → logits (B, num_classes); `set_input_size` changes the size.

    Raises:
        ConfigError: images too small for the strides.
        InputError: images of another shape or size.
    """

    undecayed = frozenset({"pos_embed", "cls_token"})
    stem = r"^patch_embed(?:\.0)?\.proj|^pos_embed"
    layers = ((r"^blocks\.(\d+)\.(\d+)", None), (r"^blocks\.(\d+)", None), (r"^patch_embed\.(\d+)", (-1,)))
    config: GFNetConfig

    def __init__(self, config: GFNetConfig, variant: str = "") -> None:
        super().__init__(config, variant)
        dims, grids = config.dims, _grids(config)
        stages = [
            nn.Sequential(*(Block(dim, grid, config.mlp_ratio, config.layer_scale, rate) for rate in rates))
            for dim, grid, rates in zip(dims, grids, config.drop_path_rates, strict=True)
        ]
        embeddings = [Patches(config.in_chans, dims[0], config.patch_size)]
        embeddings += [Patches(before, dim, 2) for before, dim in itertools.pairwise(dims)]
        self.is_pyramid = len(dims) > 1
        # The published checkpoints of one stage have no number of the stage in their names.
        self.patch_embed: nn.Module = nn.ModuleList(embeddings) if self.is_pyramid else embeddings[0]
        self.blocks: nn.Sequential = nn.Sequential(*stages) if self.is_pyramid else stages[0]
        self.pos_embed = nn.Parameter(torch.zeros(1, grids[0][0] * grids[0][1], dims[0]))
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        if self.is_pyramid:
            maps = [(dim, config.patch_size << i, f"blocks.{i}") for i, dim in enumerate(dims)]
        else:
            maps = [(dims[0], config.patch_size, f"blocks.{i}") for i in range(config.depths[0])]
        self._finish(maps, NORM_EPS)

    def run_stages(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        check_images(x_BCHW, self.in_chans, 1)
        check_size(x_BCHW, self.config.img_size, "model.set_input_size(img_size=...) resamples its filters")
        embeddings = list(self.patch_embed) if isinstance(self.patch_embed, nn.ModuleList) else [self.patch_embed]
        x_BHWC = embeddings[0](x_BCHW) + self.pos_embed.unflatten(1, _grids(self.config)[0])
        if not self.is_pyramid:
            for block in self.blocks:
                x_BHWC = self._run((block,), x_BHWC)
                yield x_BHWC
            return
        for index, stage in enumerate(self._stages()):
            x_BHWC = self._run(stage, embeddings[index](x_BHWC.permute(0, 3, 1, 2)) if index else x_BHWC)
            yield x_BHWC

    def _stages(self) -> list[nn.Sequential]:
        return [cast(nn.Sequential, stage) for stage in self.blocks] if self.is_pyramid else [self.blocks]

    def _keep_stages(self, count: int) -> None:
        self.blocks = self.blocks[:count]
        if isinstance(self.patch_embed, nn.ModuleList):
            self.patch_embed = self.patch_embed[:count]

    def _resize(self, config: PeerConfig) -> None:
        assert isinstance(config, GFNetConfig)
        old, grids = _grids(self.config), _grids(config)
        for stage, grid in zip(self._stages(), grids, strict=False):  # a pruned model has fewer stages
            for block in stage:
                cast(Block, block).filter.resample(grid)
        positions = resample_positions(self.pos_embed, old[0], grids[0], prefix=0, mode="bicubic")
        self.pos_embed = nn.Parameter(positions, requires_grad=self.pos_embed.requires_grad)
        self.config = config


def _grids(config: GFNetConfig) -> list[Grid]:
    """Rows and columns of tokens of each stage."""
    rows, columns = (side // config.patch_size for side in config.img_size)
    grids = [(rows >> i, columns >> i) for i in range(len(config.dims))]
    if 0 in grids[-1]:
        least = config.patch_size << (len(config.dims) - 1)
        height, width = config.img_size
        raise ConfigError(f"img_size={height}×{width} is too small: this GFNet needs {least}×{least} pixels or more")
    return grids
