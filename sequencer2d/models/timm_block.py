"""timm's block with our mixer, which runs as one autograd node in eager PyTorch as ours does."""

import torch
from timm.layers import DropPath, Mlp
from timm.models.sequencer import Sequencer2dBlock
from torch import Tensor

from sequencer2d.nn.eager import run_as_one_node


class EagerSequencer2dBlock(Sequencer2dBlock):
    """timm's block whose mixer `fuse` replaced. A block becomes one by taking its class; its layers stay."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, H, W, C) to (B, H, W, C)."""
        if not torch.compiler.is_compiling():
            out = run_as_one_node(self, x, ("drop_path", "drop_path"), (Mlp, DropPath))
            if out is not None:
                return out
        return super().forward(x)  # type: ignore[no-any-return]
