"""Scans whose W_hh the chip has no room for: the kernels read it from memory at each step.

All matrix products but the one from a step to the next are PyTorch's, over all tokens at once.
"""

import torch
from torch import Tensor

from sequencer2d.ops import devices, targets, tuning
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.edges import states_before
from sequencer2d.ops.precision import float32_product_precision


def runs(gates: Tensor, weight_hh: Tensor) -> bool:
    """Whether these kernels run the scans, whatever the cell."""
    limit = targets.of(gates.device).launches.max_shared_hidden[gates.element_size()]
    return int(weight_hh.shape[-1]) > limit


def scan(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    scans: tuple[int, ...],
    cell: str,
    save_for_backward: bool,
    first: Tensor | None,
    last: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`scan_kernels.scan`: h, and c if backward reads it, otherwise an empty tensor."""
    from sequencer2d.ops.kernels import triton_streamed_launch

    has_c = CELLS[cell].has_c
    state = _states(gates, weight_hh, scans, first)
    out, cells = triton_streamed_launch.launch_forward(
        gates,
        weight_hh,
        inner_bias,
        state,
        scans=scans,
        cell=cell,
        save_cells=save_for_backward and has_c,
        launches=tuning.choose_streamed_launches(gates, scans),
        approximate_tanh=devices.approximates_tanh(gates),
        precision=float32_product_precision(),
        first=None if has_c else first,
    )
    if last is not None:
        last.copy_(state)
    return out, cells


def scan_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    out: Tensor,
    cells: Tensor,
    scans: tuple[int, ...],
    cell: str,
    first: Tensor | None,
    grad_first: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `scan_kernels.scan_backward`."""
    from sequencer2d.ops.kernels import triton_streamed_launch

    has_c = CELLS[cell].has_c
    before = states_before(out, scans, None if has_c else first)
    recurrent = recurrent_products(before, weight_hh)
    dh, dc = _states(gates, weight_hh, scans, None), _states(gates, weight_hh, scans, grad_last)
    grad_gates = triton_streamed_launch.launch_backward(
        grad_out,
        gates,
        weight_hh,
        inner_bias,
        cells if has_c else out,
        recurrent,
        dh,
        dc,
        scans=scans,
        cell=cell,
        launches=tuning.choose_streamed_launches(gates, scans),
        approximate_tanh=devices.approximates_tanh(gates),
        precision=float32_product_precision(),
        first=first,
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


def _states(gates: Tensor, weight_hh: Tensor, scans: tuple[int, ...], first: Tensor | None) -> Tensor:
    """fp32 (S, rows, D) for the kernels to work on, with the rows of the scan that has the most: `first`, or zeros."""
    if first is not None:
        return first.to(torch.float32, copy=True).contiguous()
    return gates.new_zeros(len(scans), tuning.most_rows(gates, scans), weight_hh.shape[-1], dtype=torch.float32)
