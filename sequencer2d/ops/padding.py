"""Hidden units that are added to a layer so that it has as many as the kernels with W_hh in registers take.

Their weights are zero, so in an LSTM their gates, c and h are zero, and nothing of them reaches the other units.

Suffixes: S scans, G gates, D hidden units, P hidden units with the added ones, C input channels.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.weights import Weights


def pad_weights(weights: Weights, padded: int, cell: str) -> Weights:
    """The weights of P hidden units, of which those beyond D are zero."""
    gates, more = CELLS[cell].gates, padded - weights.weight_hh.shape[-1]

    def pad(weight: Any, *sides: int) -> Any:
        return None if weight is None else F.pad(weight.unflatten(1, (gates, -1)), sides).flatten(1, 2)

    return Weights(
        pad(weights.weight_ih, 0, 0, 0, more),
        pad(weights.weight_hh, 0, more, 0, more),
        pad(weights.bias_ih, 0, more),
        pad(weights.bias_hh, 0, more),
    )


def pad_units(values: Tensor, hidden: int, padded: int) -> Tensor:
    """(..., X*D) to (..., X*P), zero beyond the D units of each of the X parts."""
    return F.pad(values.unflatten(-1, (-1, hidden)), (0, padded - hidden)).flatten(-2)


def without_padding(values: Tensor, hidden: int, padded: int) -> Tensor:
    """(..., X*P) to (..., X*D): the first D units of each of the X parts, contiguous."""
    return values.unflatten(-1, (-1, padded))[..., :hidden].flatten(-2).contiguous()
