"""The scans of sequences as operators: as `scan_operators`, with the states before the first and after the last step.

Suffixes: N sequences, T steps, S scans, G gates, D hidden units.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sequencer2d.ops import reference, scan_kernels
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.custom_operator import Operator
from sequencer2d.ops.edges import last_steps
from sequencer2d.ops.scan_operators import kernels_or_reference, recurrent_bias
from sequencer2d.ops.scans import Scan
from sequencer2d.ops.vendor_operators import vjp


def sequence_scan(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    first: Tensor | None,
    scans: Sequence[int],
    cell: str,
    save_for_backward: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`scan_kernels.scan`, and c after the last step, (S, N, D), which is empty for a cell without c."""
    last = _new_last(gates, weight_hh, scans, cell)
    wanted = last if CELLS[cell].has_c else None

    def by_kernels(*arguments: Any) -> Any:
        contiguous = None if first is None else first.contiguous()
        return scan_kernels.scan(*arguments, first=contiguous, last=wanted)  # type: ignore[misc]

    def by_reference(*_: Any) -> tuple[Tensor, Tensor, Tensor]:
        bias = recurrent_bias(inner_bias, cell)
        out, *cells = reference.scan_states(gates, weight_hh, bias, scans=scans, cell=cell, first=first)
        if wanted is not None:
            wanted.copy_(last_steps(cells[0], scans))
        return out, cells[0] if save_for_backward and cells else gates.new_empty(0), gates.new_empty(0)

    arguments = (gates, weight_hh, inner_bias, scans, cell, save_for_backward)
    out, cells, activations = kernels_or_reference(by_kernels, by_reference, arguments, gates, weight_hh, cell)
    return out, cells, activations, last


def sequence_scan_backward(
    grad_out: Tensor, grad_last: Tensor | None, gates: Tensor, weight_hh: Tensor, *more: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`sequence_gradients` with that of weight_hh in its dtype."""
    grads = sequence_gradients(grad_out, grad_last, gates, weight_hh, *more)
    return grads[0], grads[1].to(weight_hh.dtype), *grads[2:]


def sequence_gradients(
    grad_out: Tensor,
    grad_last: Tensor | None,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    first: Tensor | None,
    out: Tensor,
    cells: Tensor,
    scans: Sequence[int],
    cell: str,
    gates_are_activations: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`scan_kernels.scan_backward`, with the gradient of weight_hh in fp32, and that of `first`, empty without one.

    grad_last: (S, N, D), the gradient of c after the last step; None for zeros.
    """
    grad_first = gates.new_empty(0 if first is None else first.shape)

    def by_kernels(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        contiguous = [None if state is None else state.contiguous() for state in (first, grad_last)]
        return scan_kernels.scan_backward(  # type: ignore[misc]
            *arguments,
            first=contiguous[0],
            grad_first=None if first is None else grad_first,
            grad_last=contiguous[1],
        )

    def by_reference(*_: Any) -> tuple[Tensor, Tensor, Tensor]:
        grads = _backward_by_reference(grad_out, grad_last, gates, weight_hh, inner_bias, first, scans, cell)
        if grads[3] is not None:
            grad_first.copy_(grads[3])
        return grads[:3]

    arguments = (grad_out, gates, weight_hh, inner_bias, out, cells, scans, cell, gates_are_activations)
    grads = kernels_or_reference(by_kernels, by_reference, arguments, gates, weight_hh, cell)
    return *grads, grad_first


def scan_sequence_by_reference(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    first: Tensor | None,
    *,
    scans: Sequence[int],
    cell: str,
) -> tuple[Tensor, Tensor]:
    """`sequence_scan` in plain PyTorch, differentiable twice: h, and c after the last step."""
    bias = recurrent_bias(inner_bias, cell)
    out, *cells = reference.scan_states(gates, weight_hh, bias, scans=scans, cell=cell, first=first)
    return out, last_steps(cells[0], scans) if cells else gates.new_empty(0)


def _backward_by_reference(
    grad_out: Tensor,
    grad_last: Tensor | None,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    first: Tensor | None,
    scans: Sequence[int],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    def products(g: Tensor, w: Tensor, b: Tensor | None, f: Tensor | None) -> Tensor:
        # One number whose gradients are those of both results.
        out, last = scan_sequence_by_reference(g, w, b, f, scans=scans, cell=cell)
        total = (out * grad_out).sum()
        return total if grad_last is None else total + (last * grad_last).sum()

    grads = vjp(products, [gates, weight_hh, inner_bias, first], gates.new_ones(()))
    grad_gates, grad_weight, grad_inner_bias, grad_first = grads
    assert grad_gates is not None
    assert grad_weight is not None
    bias_sums = grad_gates.flatten(0, -2).sum(0).view(len(scans), -1)
    if grad_inner_bias is not None:
        bias_sums.unflatten(1, (CELLS[cell].gates, -1))[:, CELLS[cell].inner_gate] = grad_inner_bias
    return grad_gates, grad_weight, bias_sums.float(), grad_first


def _new_last(gates: Tensor, weight_hh: Tensor, scans: Sequence[int], cell: str) -> Tensor:
    """Memory for c after the last step. All scans run along one axis."""
    if CELLS[cell].states == 1:
        return gates.new_empty(0)
    rows = math.prod(gates.shape[:-1]) // gates.shape[Scan.numbered(scans[0]).dim]
    return gates.new_empty(len(scans), rows, weight_hh.shape[-1])


def _fake_scan(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    first: Tensor | None,
    scans: Sequence[int],
    cell: str,
    save_for_backward: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = gates.new_empty(*gates.shape[:-1], len(scans) * weight_hh.shape[-1])
    cells = torch.empty_like(out) if save_for_backward and CELLS[cell].has_c else gates.new_empty(0)
    saves = save_for_backward and first is None and scan_kernels.runs_in_registers(gates, weight_hh, cell, True)
    activations = gates.new_empty(gates.shape if saves else 0)
    return out, cells, activations, _new_last(gates, weight_hh, scans, cell)


def _fake_scan_backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    first: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bias_sums = weight_hh.new_empty(weight_hh.shape[:-1], dtype=torch.float32)
    grad_first = gates.new_empty(0 if first is None else first.shape)
    return gates.new_empty(gates.shape), weight_hh.new_empty(weight_hh.shape), bias_sums, grad_first


OPERATORS = (
    Operator(
        "sequence_scan(Tensor gates, Tensor weight_hh, Tensor? inner_bias, Tensor? first, int[] scans, str cell, "
        "bool save_for_backward) -> (Tensor, Tensor, Tensor, Tensor)",
        run=sequence_scan,
        fake=_fake_scan,
    ),
    Operator(
        "sequence_scan_backward(Tensor grad_out, Tensor? grad_last, Tensor gates, Tensor weight_hh, "
        "Tensor? inner_bias, Tensor? first, Tensor out, Tensor cells, int[] scans, str cell, "
        "bool gates_are_activations) -> (Tensor, Tensor, Tensor, Tensor)",
        run=sequence_scan_backward,
        fake=_fake_scan_backward,
    ),
)
