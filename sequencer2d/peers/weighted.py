"""What ViP and CycleMLP share: three branches weighted against each other, the block, and a network of stages.

Tokens are maps (B, H, W, C) throughout.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from sequencer2d.nn.embed import check_images
from sequencer2d.peers.base import Peer
from sequencer2d.peers.config import PeerConfig

NORM_EPS = 1e-5


class WeightedMixer(nn.Module):
    """A token mixer of three branches, two of which see other tokens; the third mixes channels only.

    The branches are summed and averaged over the grid. From that, an MLP computes three numbers a channel, and their
    softmax weighs the branches (split attention, Zhang et al. 2020). A linear layer follows.
    Subclasses implement `mix_height` and `mix_width`.

    Shape: (B, H, W, C) → (B, H, W, C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp_c = nn.Linear(dim, dim, bias=False)
        self.reweight = Mlp(dim, dim // 4, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def mix_height(self, x_BHWC: Tensor) -> Tensor:
        raise NotImplementedError

    def mix_width(self, x_BHWC: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x_BHWC: Tensor) -> Tensor:
        h_BHWC, w_BHWC, c_BHWC = self.mix_height(x_BHWC), self.mix_width(x_BHWC), self.mlp_c(x_BHWC)
        mean_BC = (h_BHWC + w_BHWC + c_BHWC).mean(dim=(1, 2))
        # The three numbers of a channel lie beside each other.
        weights_BC3 = self.reweight(mean_BC).unflatten(1, (-1, 3)).softmax(dim=2)
        h_weight, w_weight, c_weight = weights_BC3[:, None, None].unbind(dim=-1)
        return self.proj(h_weight * h_BHWC + w_weight * w_BHWC + c_weight * c_BHWC)


class Block(nn.Module):
    """x + DropPath(mixer(LN(x))), then x + DropPath(MLP(LN(x))); (B, H, W, C) → (B, H, W, C)."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = mixer
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BHWC = x_BHWC + self.drop_path1(self.attn(self.norm1(x_BHWC)))
        return x_BHWC + self.drop_path2(self.mlp(self.norm2(x_BHWC)))


class Convolution(nn.Module):
    """A convolution from maps to maps: (B, H, W, C) → (B, H', W', dim), contiguous; options as for `nn.Conv2d`."""

    def __init__(self, in_chans: int, dim: int, **options: Any) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, **options)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return self.proj(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


class WeightedNet(Peer):
    """A stem, and `network`: stages of blocks with a convolution between some of them, by the published numbers.

    Args:
        config: the whole description.
        variant: its name in the table of peers.
        stem: the first convolution.
        stages: the blocks of each stage.
        between: the convolution before each stage but the first; None for none.
        reductions: pixels per token of each stage.
    """

    least = 1
    """The smallest side of an image (pixels)."""
    layers = ((r"^network\.(\d+)\.(\d+)", None), (r"^network\.(\d+)\.proj", (0,)))

    def __init__(
        self,
        config: PeerConfig,
        variant: str,
        stem: Convolution,
        stages: Sequence[nn.Sequential],
        between: Sequence[Convolution | None],
        reductions: Sequence[int],
    ) -> None:
        super().__init__(config, variant)
        self.patch_embed = stem
        parts: list[nn.Module] = [stages[0]]
        for convolution, stage in zip(between, stages[1:], strict=True):
            parts += [stage] if convolution is None else [convolution, stage]
        self.network = nn.ModuleList(parts)
        numbers = [index for index, part in enumerate(parts) if isinstance(part, nn.Sequential)]
        modules = [f"network.{number}" for number in numbers]
        self._finish(zip(config.dims, reductions, modules, strict=True), NORM_EPS)

    def check(self, x_BCHW: Tensor) -> None:
        """Raise `InputError` for images that the model does not take."""
        check_images(x_BCHW, self.in_chans, self.least)

    def run_stages(self, x_BCHW: Tensor) -> Iterator[Tensor]:
        self.check(x_BCHW)
        x_BHWC = self.patch_embed(x_BCHW.permute(0, 2, 3, 1))
        for part in self.network:
            if isinstance(part, nn.Sequential):
                x_BHWC = self._run(part, x_BHWC)
                yield x_BHWC
            else:
                x_BHWC = part(x_BHWC)

    def _keep_stages(self, count: int) -> None:
        last = int(self.feature_info[count - 1]["module"].removeprefix("network."))
        self.network = self.network[: last + 1]
