"""The fused scans as operators: by the kernels or, where those cannot run, by the reference."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops import compile_errors, devices, reference, scan_kernels, targets
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.custom_operator import Operator
from sequencer2d.ops.vendor_operators import vjp


def scan(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    scans: Sequence[int],
    cell: str,
    save_for_backward: bool,
    weight_is_final: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan_kernels.scan`."""

    def by_reference(*_: Any) -> tuple[Tensor, Tensor, Tensor]:
        out, *cells = reference.scan_states(gates, weight_hh, recurrent_bias(inner_bias, cell), scans=scans, cell=cell)
        return out, cells[0] if save_for_backward and cells else gates.new_empty(0), gates.new_empty(0)

    arguments = (gates, weight_hh, inner_bias, scans, cell, save_for_backward, weight_is_final)
    return kernels_or_reference(scan_kernels.scan, by_reference, arguments, gates, weight_hh, cell)


def scan_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    out: Tensor,
    cells: Tensor,
    scans: Sequence[int],
    cell: str,
    gates_are_activations: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan_gradients` with that of weight_hh in its dtype."""
    arguments = (grad_out, gates, weight_hh, inner_bias, out, cells, scans, cell, gates_are_activations)
    grad_gates, grad_weight_hh, grad_bias = scan_gradients(*arguments)
    return grad_gates, grad_weight_hh.to(weight_hh.dtype), grad_bias


def scan_gradients(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    out: Tensor,
    cells: Tensor,
    scans: Sequence[int],
    cell: str,
    gates_are_activations: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `scan_kernels.scan_backward`."""
    arguments = (grad_out, gates, weight_hh, inner_bias, out, cells, scans, cell, gates_are_activations)
    if gates_are_activations:
        return scan_kernels.scan_backward(*arguments)
    return kernels_or_reference(
        scan_kernels.scan_backward,
        lambda *_: _scan_backward_reference(grad_out, gates, weight_hh, inner_bias, scans, cell),
        arguments, gates, weight_hh, cell,
    )  # fmt: skip


def rnn2d_recomputing_backward(
    grad_out: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    out: Tensor,
    scans: Sequence[int],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight_ih, bias and weight_hh, and the third of `scan_backward`, with forward done again.

    It is one operator for two reasons. A compiler that saw the second input product would merge it with the first and
    store its result. And activations and gradients can overwrite the gates.
    """
    gates = scan_kernels.aligned(F.linear(x, weight_ih, bias))
    grad_gates, grad_weight_hh, grad_bias_hh = kernels_or_reference(
        scan_kernels.recompute_scan_backward,
        lambda *_: _scan_backward_reference(grad_out, gates, weight_hh, inner_bias, scans, cell),
        (grad_out, gates, weight_hh, inner_bias, out, tuple(scans), cell),
        gates, weight_hh, cell,
    )  # fmt: skip
    flat = grad_gates.flatten(0, -2)
    grad_weight_hh = grad_weight_hh.to(weight_hh.dtype)
    # The results of an operator may not share memory, hence the copy.
    has_inner_gate = CELLS[cell].inner_gate is not None
    grad_bias = flat.sum(0, dtype=torch.float32) if has_inner_gate else grad_bias_hh.flatten().clone()
    return grad_gates @ weight_ih, flat.T @ x.flatten(0, -2), grad_bias, grad_weight_hh, grad_bias_hh


def kernels_or_reference(
    kernels: Callable[..., Any],
    by_reference: Callable[..., Any],
    arguments: tuple[Any, ...],
    gates: Tensor,
    weight_hh: Tensor,
    cell: str,
) -> Any:
    """Run the kernels. Where there are none, or they do not compile, run the reference; `rnn2d` then avoids them."""
    target = targets.find(gates.device.type, gates.device.index)
    if target is not None and (gates.is_cuda or devices.interpreting()):
        try:
            return kernels(*arguments)
        except compile_errors.CompileError as error:
            problem = (cell, weight_hh.shape[-1], gates.dtype, gates.device)
            compile_errors.rule_out(*problem, error=error, instead="PyTorch's own functions run")
    return by_reference(*arguments)


def _scan_backward_reference(
    grad_out: Tensor, gates: Tensor, weight_hh: Tensor, inner_bias: Tensor | None, scans: Sequence[int], cell: str
) -> tuple[Tensor, Tensor, Tensor]:
    grad_gates, grad_weight, grad_inner_bias = vjp(
        lambda g, w, b: reference.scan_gates(g, w, recurrent_bias(b, cell), scans=scans, cell=cell),
        [gates, weight_hh, inner_bias],
        grad_out,
    )
    assert grad_gates is not None
    assert grad_weight is not None
    bias_sums = grad_gates.flatten(0, -2).sum(0).view(len(scans), -1)
    if grad_inner_bias is not None:
        bias_sums.unflatten(1, (CELLS[cell].gates, -1))[:, CELLS[cell].inner_gate] = grad_inner_bias
    return grad_gates, grad_weight, bias_sums.float()


def recurrent_bias(inner_bias: Tensor | None, cell: str) -> Tensor | None:
    """The bias of the recurrent product, (S, D) to (S, G*D): that of the inner gate. The others are in the gates."""
    inner_gate = CELLS[cell].inner_gate
    if inner_bias is None or inner_gate is None:
        return None
    hidden = inner_bias.shape[-1]
    return F.pad(inner_bias, (inner_gate * hidden, (CELLS[cell].gates - 1 - inner_gate) * hidden))


def _fake_scan(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    scans: Sequence[int],
    cell: str,
    save_for_backward: bool,
    weight_is_final: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    out = gates.new_empty(*gates.shape[:-1], len(scans) * weight_hh.shape[-1])
    cells = torch.empty_like(out) if save_for_backward and CELLS[cell].has_c else gates.new_empty(0)
    saves = save_for_backward and scan_kernels.runs_in_registers(gates, weight_hh, cell, True)
    return out, cells, gates.new_empty(gates.shape if saves else 0)


def _fake_scan_backward(grad_out: Tensor, gates: Tensor, weight_hh: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return gates.new_empty(gates.shape), weight_hh.new_empty(weight_hh.shape), _fake_bias_sums(weight_hh)


def _fake_recomputing_backward(
    grad_out: Tensor, x: Tensor, weight_ih: Tensor, bias: Tensor | None, weight_hh: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        weight_ih.new_empty(weight_ih.shape),
        _fake_bias_sums(weight_hh).flatten(),
        weight_hh.new_empty(weight_hh.shape),
        _fake_bias_sums(weight_hh),
    )


def _fake_bias_sums(weight_hh: Tensor) -> Tensor:
    return weight_hh.new_empty(weight_hh.shape[:-1], dtype=torch.float32)


OPERATORS = (
    Operator(
        "scan(Tensor gates, Tensor weight_hh, Tensor? inner_bias, int[] scans, str cell, bool save_for_backward, "
        "bool weight_is_final=False) -> (Tensor, Tensor, Tensor)",
        run=scan,
        fake=_fake_scan,
    ),
    Operator(
        "scan_backward(Tensor grad_out, Tensor gates, Tensor weight_hh, Tensor? inner_bias, Tensor out, Tensor cells, "
        "int[] scans, str cell, bool gates_are_activations) -> (Tensor, Tensor, Tensor)",
        run=scan_backward,
        fake=_fake_scan_backward,
    ),
    Operator(
        "rnn2d_recomputing_backward(Tensor grad_out, Tensor x, Tensor weight_ih, Tensor? bias, Tensor weight_hh, "
        "Tensor? inner_bias, Tensor out, int[] scans, str cell) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        run=rnn2d_recomputing_backward,
        fake=_fake_recomputing_backward,
    ),
)
