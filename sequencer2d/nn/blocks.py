"""The Sequencer block: norm, recurrent token mixer, norm, channel MLP. All tensors are NHWC: (B, H, W, C)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from sequencer2d.nn.eager import draw_masks, run_as_one_node
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops.block import runs_eagerly

NORM_EPS = 1e-6


def drop_path(x: Tensor, rate: float) -> Tensor:
    """Zero whole samples of `x` (B, ...) with probability `rate`, scaling the others by 1 / (1 − rate)."""
    survival = 1.0 - rate
    mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(survival)
    return x * (mask / survival)


# The mask's shape cannot be traced by symbols: torch.fx keeps this as a call.
torch.fx.wrap("drop_path")


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016) per sample; the identity in eval mode or at rate 0."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.rate) if self.training and self.rate > 0.0 else x

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class Mlp(nn.Module):
    """Linear, exact GELU, dropout, linear, dropout over the last axis: (..., dim) → (..., dim)."""

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class SequencerBlock(nn.Module):
    """One block (the paper's Figure 2d and e): x + DropPath(mixer(LN(x))), then x + DropPath(MLP(LN(x))).

    Args:
        dim: channels C.
        hidden_dim: hidden units D of one scan.
        mlp_ratio: hidden channels of the MLP over C.
        drop_path: stochastic depth of both branches, 0 to 1.
        proj_drop: dropout in the MLP, 0 to 1.
        mixer: options of `RNN2D` (cell, axes, bidirectional, fusion, implementation).

    Shape: (B, H, W, C) → (B, H, W, C), floating.

    Attributes:
        compiled: runs `add_branches(block, ...)` as compiled code, in place of the layers; None for none. Hooks of the
            block stay outside of it. Copies and pickles go without.
    """

    compiled: Callable[..., Tensor] | None = None

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        mlp_ratio: float = 3.0,
        drop_path: float = 0.0,
        proj_drop: float = 0.0,
        **mixer: Any,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.rnn_tokens = RNN2D(dim, hidden_dim, **mixer)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp_channels = Mlp(dim, int(mlp_ratio * dim), drop=proj_drop)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            out = self._run_compiled(x_BHWC)
            if out is None:
                out = run_as_one_node(self, x_BHWC, ("drop_path1", "drop_path2"), (Mlp, DropPath))
            if out is not None:
                return out
        x_BHWC = x_BHWC + self.drop_path1(self.rnn_tokens(self.norm1(x_BHWC)))
        return x_BHWC + self.drop_path2(self.mlp_channels(self.norm2(x_BHWC)))

    def _run_compiled(self, x_BHWC: Tensor) -> Tensor | None:
        """The output of the compiled code; None if there is none, or if it must not run in its place."""
        if self.compiled is None or not runs_eagerly():
            return None
        masks = draw_masks((self.drop_path1, self.drop_path2), x_BHWC, DropPath)
        return None if masks is None else self.compiled(self, x_BHWC, *masks)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # type: ignore[misc]
        return {key: value for key, value in state.items() if key != "compiled"}

    def add_branches(self, x_BHWC: Tensor, mask1: Tensor | None, mask2: Tensor | None) -> Tensor:
        """What `forward` returns for these draws of stochastic depth, (B, 1, 1, 1), or None where it drops nothing.

        Blocks that differ in their rates alone are the same to a compiler here.
        """
        branch = self.rnn_tokens(self.norm1(x_BHWC))
        x_BHWC = x_BHWC + (branch if mask1 is None else branch * mask1)
        branch = self.mlp_channels(self.norm2(x_BHWC))
        return x_BHWC + (branch if mask2 is None else branch * mask2)


class ClassifierHead(nn.Module):
    """Pool over the grid, dropout, linear.

    Args:
        dim: channels C.
        num_classes: outputs; 0 returns the pooled features.
        global_pool: "avg", "max" or "" (every token is classified).
        drop: dropout before the linear layer, 0 to 1.

    Shape: (B, H, W, C) → (B, num_classes), without pooling (B, H, W, num_classes).
    """

    def __init__(self, dim: int, num_classes: int, global_pool: str = "avg", drop: float = 0.0) -> None:
        super().__init__()
        self.global_pool = global_pool
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(dim, num_classes) if num_classes > 0 else nn.Identity()

    def pool(self, x_BHWC: Tensor) -> Tensor:
        """(B, H, W, C) → (B, C), or the input itself where `global_pool` is empty."""
        if self.global_pool == "avg":
            return x_BHWC.mean(dim=(1, 2))
        return torch.amax(x_BHWC, dim=(1, 2)) if self.global_pool == "max" else x_BHWC

    def forward(self, x_BHWC: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pool(x_BHWC))
        return x if pre_logits else self.fc(x)

    def extra_repr(self) -> str:
        return f"global_pool={self.global_pool!r}"
