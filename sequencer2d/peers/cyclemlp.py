"""CycleMLP (Chen et al. 2022): linear layers over channels, each of which is taken from a neighbor of the token."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sequencer2d.peers.base import INIT_STD
from sequencer2d.peers.config import CycleMLPConfig
from sequencer2d.peers.weighted import Block, Convolution, WeightedMixer, WeightedNet

HEIGHT, WIDTH = 1, 2
STEM = {"kernel_size": 7, "stride": 4, "padding": 2}
DOWN = {"kernel_size": 3, "stride": 2, "padding": 1}


def cycle_shift(x_BHWC: Tensor, axis: int) -> Tensor:
    """Shift channels along `axis`: channel i takes the value 0, 1 or −1 tokens further on, for i mod 3 = 0, 1 or 2.

    Tokens outside the grid are zero. The published code samples with a deformable convolution, whose offsets are these
    integers.
    """
    last = x_BHWC.shape[axis] - 1
    shifted = torch.zeros_like(x_BHWC)
    shifted[..., 0::3] = x_BHWC[..., 0::3]
    shifted.narrow(axis, 0, last)[..., 1::3] = x_BHWC.narrow(axis, 1, last)[..., 1::3]
    shifted.narrow(axis, 1, last)[..., 2::3] = x_BHWC.narrow(axis, 0, last)[..., 2::3]
    return shifted


def _offset(dim: int, axis: int) -> Tensor:
    offset_C2 = torch.zeros(dim, 2)
    offset_C2[:, axis - HEIGHT] = ((torch.arange(dim) + 1) % 3 - 1).to(offset_C2)
    return offset_C2.reshape(1, 2 * dim, 1, 1)


class CycleFC(nn.Module):
    """A linear layer over shifted channels (`cycle_shift`): (B, H, W, C) → (B, H, W, C).

    Checkpoints hold the shifts in the buffer `offset` (1, 2C, 1, 1): for each channel the tokens down and to the right.
    """

    offset: Tensor

    def __init__(self, dim: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.empty(dim, dim, 1, 1))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(self.weight, std=INIT_STD)
        self.register_buffer("offset", _offset(dim, axis))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        return F.linear(cycle_shift(x_BHWC, self.axis), self.weight.flatten(1), self.bias)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Load as any module does, but refuse other shifts: the forward pass has its own."""
        super()._load_from_state_dict(state, prefix, *rest)
        given, own = state.get(f"{prefix}offset"), _offset(self.weight.shape[0], self.axis)
        if given is None or given.is_meta or given.shape != own.shape:
            return
        if not torch.equal(given.cpu(), own.to(given.dtype)):
            error_messages: list[str] = rest[-1]
            error_messages.append(f"{prefix}offset holds other shifts than CycleMLP's")

    def extra_repr(self) -> str:
        return f"dim={self.weight.shape[0]}, axis={'height' if self.axis == HEIGHT else 'width'}"


class CycleMixer(WeightedMixer):
    """CycleMLP's mixer: one linear layer over channels shifted along each axis, and one over unshifted channels.

    Shape: (B, H, W, C) → (B, H, W, C). In the published names `sfc_h` shifts along the width and `sfc_w` along the
    height.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.sfc_h = CycleFC(dim, WIDTH)
        self.sfc_w = CycleFC(dim, HEIGHT)

    def mix_height(self, x_BHWC: Tensor) -> Tensor:
        return self.sfc_h(x_BHWC)

    def mix_width(self, x_BHWC: Tensor) -> Tensor:
        return self.sfc_w(x_BHWC)


class CycleMLP(WeightedNet):
    """CycleMLP, a pyramid of stages, for images of any size, without a position embedding.

    Shape: images (B, in_chans, H, W) → logits (B, num_classes).

    Raises:
        InputError: images of another shape.
    """

    least = 3
    config: CycleMLPConfig

    def __init__(self, config: CycleMLPConfig, variant: str = "") -> None:
        sizes = zip(config.dims, config.mlp_ratios, config.drop_path_rates, strict=True)
        stages = [
            nn.Sequential(*(Block(dim, CycleMixer(dim), ratio, rate) for rate in rates)) for dim, ratio, rates in sizes
        ]
        between = [Convolution(dim, dim_out, **DOWN) for dim, dim_out in itertools.pairwise(config.dims)]
        stem = Convolution(config.in_chans, config.dims[0], **STEM)
        reductions = [STEM["stride"] * DOWN["stride"] ** stage for stage in range(len(stages))]
        super().__init__(config, variant, stem, stages, between, reductions)
