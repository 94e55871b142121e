"""PVT, the Pyramid Vision Transformer, version 1 (Wang et al. 2021): attention to a coarser grid of keys and values.

A stage's tokens are a sequence (B, N, C), between stages a map. The class token lives in the last stage alone.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import ConfigError
from sequencer2d.nn.embed import check_images
from sequencer2d.peers.base import INIT_STD, Peer, resample_positions
from sequencer2d.peers.config import PeerConfig, PVTConfig

BLOCK_EPS, PATCH_EPS = 1e-6, 1e-5
STEM_STRIDE = 4
Grid = tuple[int, int]


class ReducedAttention(nn.Module):
    """Multi-head attention whose keys and values come from a grid coarser by `reduction` (a convolution, then a norm).

    Shape: tokens (B, H·W, C) → the same; at reduction 1 any number of tokens.
    """

    def __init__(self, dim: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim, eps=PATCH_EPS)

    def forward(self, x_BNC: Tensor, grid: Grid) -> Tensor:
        coarse = x_BNC
        if self.reduction > 1:
            coarse = self.sr(x_BNC.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
            coarse = self.norm(coarse)
        query = self._split(self.q(x_BNC))
        key, value = map(self._split, self.kv(coarse).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, x_BNC: Tensor) -> Tensor:
        """(B, N, C) → (B, heads, N, C / heads)."""
        return x_BNC.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, reduction={self.reduction}"


class Block(nn.Module):
    """x + DropPath(attention(LN(x))), then x + DropPath(MLP(LN(x))); tokens (B, N, C) of a grid → the same."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, reduction: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=BLOCK_EPS)
        self.attn = ReducedAttention(dim, heads, reduction)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=BLOCK_EPS)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x_BNC: Tensor, grid: Grid) -> Tensor:
        x_BNC = x_BNC + self.drop_path1(self.attn(self.norm1(x_BNC), grid))
        return x_BNC + self.drop_path2(self.mlp(self.norm2(x_BNC)))


class PatchEmbed(nn.Module):
    """A convolution whose kernel is its stride, then a norm: (B, C, H, W) → (B, H', W', dim)."""

    def __init__(self, in_chans: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=PATCH_EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.norm(self.proj(x_BCHW).permute(0, 2, 3, 1))


class PVT(Peer):
    """The Pyramid Vision Transformer with feature maps at strides 4, 8, 16, 32.

    Shape: images (B, in_chans, H, W), at least 32 pixels a side → logits (B, num_classes). Any such size runs;
    positions are interpolated (bilinear, as by the authors) where the grid is another than that of `img_size`.

    Without its head, as an extractor of features, the last stage has no class token: so the authors' code for
    segmentation and detection.

    Raises:
        ConfigError: sizes that do not fit each other.
        InputError: images of another shape, or too small.
    """

    undecayed = frozenset({"cls_token"})
    stem = r"^patch_embed1|^pos_embed1"
    layers = (
        (r"^block(\d+)\.(\d+)", None),
        (r"^patch_embed(\d+)", (-1,)),
        (r"^pos_embed(\d+)", (-1,)),
    )
    num_prefix_tokens = 1
    config: PVTConfig
    cls_token: nn.Parameter | None

    def __init__(self, config: PVTConfig, variant: str = "") -> None:
        super().__init__(config, variant)
        if any(dim % heads for dim, heads in zip(config.dims, config.heads, strict=True)):
            raise ConfigError(
                f"dims={config.dims}, heads={config.heads}: in each stage the heads must divide the width"
            )
        self._numbers = range(1, len(config.dims) + 1)
        grids = _grids(config.img_size, len(config.dims))
        before = config.in_chans
        for index, (number, grid) in enumerate(zip(self._numbers, grids, strict=True)):
            dim, is_last = config.dims[index], number == self._numbers[-1]
            patch = PatchEmbed(before, dim, STEM_STRIDE if index == 0 else 2)
            positions = nn.Parameter(torch.zeros(1, grid[0] * grid[1] + is_last, dim))
            nn.init.trunc_normal_(positions, std=INIT_STD)
            sizes = config.heads[index], config.mlp_ratios[index], config.reductions[index]
            blocks = nn.ModuleList(Block(dim, *sizes, rate) for rate in config.drop_path_rates[index])
            setattr(self, f"patch_embed{number}", patch)
            setattr(self, f"pos_embed{number}", positions)
            setattr(self, f"block{number}", blocks)
            before = dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, before))
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        strides = [STEM_STRIDE << index for index in range(len(config.dims))]
        modules = [f"block{number}" for number in self._numbers]
        self._finish(zip(config.dims, strides, modules, strict=True), BLOCK_EPS)

    def run_stages(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        count = len(self._numbers)
        check_images(x_BCHW, self.in_chans, STEM_STRIDE << (count - 1))
        for number in self._numbers:
            x_BHWC = getattr(self, f"patch_embed{number}")(x_BCHW)
            tokens, grid = x_BHWC.flatten(1, 2), tuple(x_BHWC.shape[1:3])
            prefix = number == len(self.config.dims)
            positions = self._positions(number, grid)
            if prefix and self.cls_token is not None:
                tokens = torch.cat((self.cls_token.expand(len(tokens), -1, -1), tokens), dim=1)
            elif prefix:
                positions = positions[:, 1:]
            tokens = self._run(getattr(self, f"block{number}"), tokens + positions, grid)
            if prefix and self.cls_token is not None:
                yield tokens
                return
            x_BHWC = tokens.unflatten(1, grid)
            yield x_BHWC
            x_BCHW = x_BHWC.permute(0, 3, 1, 2)

    def _positions(self, number: int, grid: Grid) -> Tensor:
        """Positions of stage `number` for a grid, the class token's first where it has one."""
        own = _grids(self.config.img_size, len(self.config.dims))[number - 1]
        positions = cast(Tensor, getattr(self, f"pos_embed{number}"))
        prefix = int(number == len(self.config.dims))
        return resample_positions(positions, own, grid, prefix=prefix, mode="bilinear")

    def _grid(self, height: int, width: int) -> Grid:
        return _grids((height, width), len(self.config.dims))[-1]

    def _keep_stages(self, count: int) -> None:
        for number in self._numbers[count:]:
            for name in ("patch_embed", "pos_embed", "block"):
                delattr(self, f"{name}{number}")
        self._numbers = self._numbers[:count]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As `Peer.prune_intermediate_layers`; the class token goes with the head."""
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if prune_head or isinstance(self.norm, nn.Identity):
            self.cls_token = None
        return chosen

    def _resize(self, config: PeerConfig) -> None:
        assert isinstance(config, PVTConfig)
        grids = _grids(config.img_size, len(config.dims))
        for number in self._numbers:
            positions = self._positions(number, grids[number - 1])
            old = cast(nn.Parameter, getattr(self, f"pos_embed{number}"))
            setattr(self, f"pos_embed{number}", nn.Parameter(positions, requires_grad=old.requires_grad))
        self.config = config


def _grids(size: tuple[int, int], stages: int) -> list[Grid]:
    """Rows and columns of tokens of each stage, for an image of `size` pixels."""
    rows, columns = (side // STEM_STRIDE for side in size)
    return [(rows >> stage, columns >> stage) for stage in range(stages)]
