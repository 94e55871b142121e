"""Scans whose W_hh the chip has no room for: the kernels read it from memory at each step.

All matrix products but the one from a step to the next are PyTorch's, over all tokens at once.
"""

import torch
from torch import Tensor

from sequencer2d.ops import targets, tuning
from sequencer2d.ops.edges import states_before
from sequencer2d.ops.recurrence import Recurrence


def runs(gates: Tensor, weight_hh: Tensor) -> bool:
    """Whether these kernels run the scans, whatever the cell."""
    limit = targets.of(gates.device).launches.max_shared_hidden[gates.element_size()]
    return int(weight_hh.shape[-1]) > limit


def scan(recurrence: Recurrence, save_for_backward: bool, last: Tensor | None) -> tuple[Tensor, Tensor]:
    """`scan_kernels.scan`: h, and c if backward reads it, otherwise an empty tensor."""
    from sequencer2d.ops.kernels import triton_streamed_launch

    state = _states(recurrence, recurrence.first)
    out, cells = triton_streamed_launch.launch_forward(
        recurrence,
        tuning.choose_streamed_launches(recurrence.gates, recurrence.scans),
        state,
        save_cells=save_for_backward and recurrence.row.has_c,
    )
    if last is not None:
        last.copy_(state)
    return out, cells


def scan_backward(
    recurrence: Recurrence,
    grad_out: Tensor,
    out: Tensor,
    cells: Tensor,
    grad_first: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `scan_kernels.scan_backward`."""
    from sequencer2d.ops.kernels import triton_streamed_launch

    scans, has_c = recurrence.scans, recurrence.row.has_c
    before = states_before(out, scans, None if has_c else recurrence.first)
    recurrent = recurrent_products(before, recurrence.weight_hh)
    dh, dc = _states(recurrence, None), _states(recurrence, grad_last)
    launches = tuning.choose_streamed_launches(recurrence.gates, scans)
    grad_gates = triton_streamed_launch.launch_backward(
        recurrence, launches, grad_out, cells if has_c else out, recurrent, dh, dc
    )
    # `recurrent` holds gradients by now.
    grad_weight = weight_gradient(recurrent, before, len(scans))
    if grad_first is not None:
        grad_first.copy_(dc if has_c else dc + dh)
    grad_bias = recurrent.flatten(0, -2).sum(0, dtype=torch.float32).view(len(scans), -1)
    return grad_gates, grad_weight, grad_bias


def recurrent_products(before: Tensor, weight_hh: Tensor) -> Tensor:
    """W_hh times h before each step, (B, *grid, S*D): (B, *grid, S*G*D)."""
    slots, width, _ = weight_hh.shape
    products = before.new_empty(*before.shape[:-1], slots * width)
    with torch.autocast(before.device.type, enabled=False):
        for hidden, weight, target in zip(_by_slot(before, slots), weight_hh, _by_slot(products, slots), strict=True):
            torch.mm(hidden, weight.T, out=target)
    return products


def weight_gradient(grad_recurrent: Tensor, before: Tensor, slots: int) -> Tensor:
    """The gradient of W_hh, fp32 (S, G*D, D), from that of its products, (B, *grid, S*G*D), and h before each step."""
    with torch.autocast(before.device.type, enabled=False):
        pairs = zip(_by_slot(grad_recurrent, slots), _by_slot(before, slots), strict=True)
        return torch.stack([grads.T @ hidden for grads, hidden in pairs]).float()


def _by_slot(values: Tensor, slots: int) -> tuple[Tensor, ...]:
    """(B, *grid, S*X) as S matrices (tokens, X)."""
    return values.flatten(0, -2).chunk(slots, dim=-1)


def _states(recurrence: Recurrence, first: Tensor | None) -> Tensor:
    """fp32 (S, rows, D) for the kernels to work on, with the rows of the scan that has the most: `first`, or zeros."""
    if first is not None:
        return first.to(torch.float32, copy=True).contiguous()
    gates, scans = recurrence.gates, recurrence.scans
    return gates.new_zeros(len(scans), tuning.most_rows(gates, scans), recurrence.hidden, dtype=torch.float32)
