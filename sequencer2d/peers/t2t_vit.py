"""T2T-ViT_t (Yuan et al. 2021): overlapping patches are split and merged three times before a narrow ViT.

Tokens are sequences (B, N, C). Positions are fixed sinusoids, made for one grid and interpolated for others.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.errors import ConfigError
from sequencer2d.nn.embed import check_images
from sequencer2d.peers.base import INIT_STD, Peer, resample_positions
from sequencer2d.peers.config import PeerConfig, T2TViTConfig

NORM_EPS = 1e-5
TOKEN_DIM = 64
SMALLEST = 3
"""Pixels of a side, at least: the first split needs no more, as it pads."""


class Split(NamedTuple):
    """A sliding window, as of a convolution: tokens are the values in it, channels first."""

    kernel: int
    stride: int
    padding: int

    def apply(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) → tokens (B, N, C · kernel²), rows first."""
        return F.unfold(x_BCHW, self.kernel, stride=self.stride, padding=self.padding).transpose(1, 2)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of its tokens."""
        rows, columns = ((side + 2 * self.padding - self.kernel) // self.stride + 1 for side in (height, width))
        return rows, columns


SPLITS = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))
REDUCTION = 16


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the ViT's tokens for an image of `height`×`width` pixels."""
    for split in SPLITS:
        height, width = split.grid(height, width)
    return height, width


def sinusoids(count: int, dim: int) -> Tensor:
    """Positions (1, count, dim): sin and cos in turn of position / 10000^(2⌊i/2⌋ / dim) (Vaswani et al. 2017)."""
    rates = 10000.0 ** (-2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    even = torch.arange(dim) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos())[None].float()


class TokenAttention(nn.Module):
    """Self-attention of one head that narrows the tokens: values + projected attention, without the input itself.

    Scores are scaled by the square root of the *input's* width. Shape: (B, N, dim) → (B, N, 64).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * TOKEN_DIM, bias=False)
        self.proj = nn.Linear(TOKEN_DIM, TOKEN_DIM)
        self.scale = dim**-0.5

    def forward(self, x_BNC: Tensor) -> Tensor:
        query, key, value = self.qkv(x_BNC)[:, None].chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return (value + self.proj(mixed))[:, 0]


class TokenTransformer(nn.Module):
    """attention(LN(x)), then x + MLP(LN(x)): (B, N, dim) → (B, N, 64)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = TokenAttention(dim)
        self.norm2 = nn.LayerNorm(TOKEN_DIM, eps=NORM_EPS)
        self.mlp = Mlp(TOKEN_DIM, TOKEN_DIM)

    def forward(self, x_BNC: Tensor) -> Tensor:
        x_BNC = self.attn(self.norm1(x_BNC))
        return x_BNC + self.mlp(self.norm2(x_BNC))


class TokensToToken(nn.Module):
    """Split, transform, merge into a map, split again; the third split's tokens are projected.

    Shape: images (B, in_chans, H, W) → tokens (B, N, dim), N ≈ H/16 · W/16.
    """

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        first, second, third = (split.kernel**2 for split in SPLITS)
        self.attention1 = TokenTransformer(in_chans * first)
        self.attention2 = TokenTransformer(TOKEN_DIM * second)
        self.project = nn.Linear(TOKEN_DIM * third, dim)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for split, transformer in zip(SPLITS[:2], (self.attention1, self.attention2), strict=True):
            grid = split.grid(*x_BCHW.shape[2:])
            x_BCHW = transformer(split.apply(x_BCHW)).transpose(1, 2).unflatten(2, grid)
        return self.project(SPLITS[2].apply(x_BCHW))


class T2TViT(Peer):
    """Tokens-to-token ViT with transformers in the splits ("_t").

    Shape: images (B, in_chans, H, W) → logits (B, num_classes). Any size runs; positions are interpolated where the
    grid is another than that of `img_size`.

    Raises:
        ConfigError: sizes that do not fit each other.
        InputError: images of another shape.
    """

    undecayed = frozenset({"cls_token"})
    stem = r"^tokens_to_token|^pos_embed|^cls_token"
    layers = ((r"^blocks\.(\d+)", None),)
    num_prefix_tokens = 1
    config: T2TViTConfig

    def __init__(self, config: T2TViTConfig, variant: str = "") -> None:
        super().__init__(config, variant)
        if len(config.dims) != 1 or config.dims[0] % config.heads:
            raise ConfigError(
                f"dims={config.dims}, heads={config.heads}: T2T-ViT has one stage, whose width the heads divide"
            )
        (dim,), (rates,) = config.dims, config.drop_path_rates
        self.tokens_to_token = TokensToToken(config.in_chans, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.trunc_normal_(self.cls_token, std=INIT_STD)
        rows, columns = grid_of(*config.img_size)
        self.pos_embed = nn.Parameter(sinusoids(1 + rows * columns, dim), requires_grad=False)
        self.blocks = nn.Sequential(
            *(Block(dim, config.heads, config.mlp_ratio, drop_path=rate, norm_layer=nn.LayerNorm) for rate in rates)
        )
        self._finish([(dim, REDUCTION, f"blocks.{i}") for i in range(config.depths[0])], NORM_EPS)

    def run_stages(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        check_images(x_BCHW, self.in_chans, SMALLEST)
        tokens = self.tokens_to_token(x_BCHW)
        tokens = torch.cat((self.cls_token.expand(len(tokens), -1, -1), tokens), dim=1)
        tokens = tokens + self._positions(grid_of(*x_BCHW.shape[2:]))
        for block in self.blocks:
            tokens = self._run((block,), tokens)
            yield tokens

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        return resample_positions(self.pos_embed, grid_of(*self.config.img_size), grid, prefix=1, mode="bicubic")

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        return grid_of(height, width)

    def _keep_stages(self, count: int) -> None:
        self.blocks = self.blocks[:count]

    def _resize(self, config: PeerConfig) -> None:
        assert isinstance(config, T2TViTConfig)
        self.pos_embed = nn.Parameter(self._positions(grid_of(*config.img_size)), requires_grad=False)
        self.config = config
