"""Which kernels run the scans: W_hh in registers where they have room, or in shared memory, or read at each step.

The functions here take and return tensors. `scan_operators` makes operators of them. Kernels, and Triton with them, are
imported when one runs.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from sequencer2d.ops import compile_errors, devices, streamed_scans, targets, tuning
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.edges import first_steps
from sequencer2d.ops.precision import float32_product_precision
from sequencer2d.ops.recurrence import Recurrence


def scan(
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    scans: Sequence[int],
    cell: str,
    save_for_backward: bool,
    weight_is_final: bool = False,
    activations: Tensor | None = None,
    first: Tensor | None = None,
    last: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward: the scans over gates whose input product is done.

    Args:
        gates: (B, *grid, S*G*D), the input's part of the pre-activations, with every bias that may be added to it.
        weight_hh: (S, G*D, D).
        inner_bias: (S, D), the recurrent bias of the cell's inner gate; None if it has none, or no biases.
        scans: the scan of each slot.
        cell: the name of the cell.
        save_for_backward: whether to return what backward reads.
        weight_is_final: no launch that may still be running writes `weight_hh`, so it may be read at once.
        activations: where the gates' activations go. It may be `gates` itself.
        first: (S, rows, D), the state that the scans begin with: c, or h for a cell without c. None stands for zeros.
        last: (S, rows, D), where c after the last step goes, if it is wanted.

    Returns:
        h (B, *grid, S*D), and what backward reads: c, shaped as h, if the cell has it, and the gates' activations,
        shaped as gates, if backward reads those instead of the gates. What is not saved is empty.
    """
    gates, scans = aligned(gates), tuple(scans)
    weight_is_final = weight_is_final and weight_hh.is_contiguous()
    weight_hh = weight_hh.contiguous()
    if gates.numel() == 0:
        return _scan_empty_grid(gates, weight_hh, cell, save_for_backward, activations)
    arithmetic = (devices.approximates_tanh(gates), float32_product_precision())
    recurrence = Recurrence(gates, weight_hh, inner_bias, scans, cell, *arithmetic, first)
    with devices.current(gates):
        if streamed_scans.runs(gates, weight_hh):
            out, cells = streamed_scans.scan(recurrence, save_for_backward, last)
            return out, cells, gates.new_empty(0)
        if first is None and runs_in_registers(gates, weight_hh, cell, save_for_backward and activations is None):
            from sequencer2d.ops.kernels import gluon_launch

            kernel = "training" if save_for_backward else "forward"
            try:
                return gluon_launch.launch_forward(
                    gates,
                    weight_hh,
                    scans=scans,
                    save=save_for_backward,
                    launches=tuning.choose_register_launches(kernel, gates, weight_hh, scans),
                    approximate_tanh=recurrence.approximate_tanh,
                    early_start=weight_is_final and devices.starts_early(gates.device),
                    activations=activations,
                    last=last,
                )
            except compile_errors.CompileError as error:
                compile_errors.rule_out(
                    *_registers_key(gates, weight_hh), error=error, instead="W_hh goes to shared memory"
                )
        from sequencer2d.ops.kernels import triton_launch

        launches = tuning.choose_shared_launches("forward", gates, weight_hh, scans)
        saves = save_for_backward and recurrence.row.has_c
        out, cells = triton_launch.launch_forward(recurrence, launches, save_cells=saves, last=last)
        return out, cells, gates.new_empty(0)


def runs_in_registers(gates: Tensor, weight_hh: Tensor, cell: str, save_activations: bool = False) -> bool:
    """Whether the kernels with W_hh in registers run: in 16 bits, for some cells and hidden sizes, on a GPU.

    save_activations: whether backward will read the gates' activations.
    """
    device_code = CELLS[cell].device_code
    if device_code is None or not device_code.in_registers:
        return False
    if gates.device.type != "cuda" or gates.dtype not in (torch.float16, torch.bfloat16):
        return False
    hidden = int(weight_hh.shape[-1])  # a compiler's symbol if dynamic shapes were asked for
    if devices.problem("registers", gates.device.type, gates.device.index) is not None:
        return False
    target = targets.of(gates.device)
    if not target.launches.runs_in_registers(hidden, target.shared_bytes):
        return False
    if save_activations and hidden < target.launches.min_hidden_to_save_activations:
        return False
    return compile_errors.ruled_out(*_registers_key(gates, weight_hh)) is None


@targets.constant
def padded_hidden(hidden: int, cell: str, dtype: torch.dtype, device: str, index: int | None) -> int:
    """The hidden units with which sequences of `hidden` units run: as many as registers hold, if that is few more.

    Units whose weights are zero stay zero. torch.compile takes the answer for a constant.
    """
    device_code = CELLS[cell].device_code
    if (
        device != "cuda"
        or dtype not in (torch.float16, torch.bfloat16)
        or not device_code
        or not device_code.in_registers
    ):
        return hidden
    target = targets.find(device, index)
    if target is None or devices.problem("registers", device, index) is not None:
        return hidden
    return target.launches.padded_hidden(hidden, target.shared_bytes)


def _registers_key(gates: Tensor, weight_hh: Tensor) -> tuple[Hashable, ...]:
    return "W_hh in registers,", int(weight_hh.shape[-1]), gates.dtype, gates.device


def _scan_empty_grid(
    gates: Tensor, weight_hh: Tensor, cell: str, save_for_backward: bool, activations: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The results for a grid without images, rows or columns, for which no kernel may be launched."""
    saves = save_for_backward and activations is None and runs_in_registers(gates, weight_hh, cell, True)
    out = gates.new_empty(*gates.shape[:-1], weight_hh.shape[0] * weight_hh.shape[-1])
    cells = torch.empty_like(out) if save_for_backward and CELLS[cell].has_c else gates.new_empty(0)
    return out, cells, gates.new_empty(gates.shape if saves else 0)


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
    grad_gates: Tensor | None = None,
    first: Tensor | None = None,
    grad_first: Tensor | None = None,
    grad_last: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward: gradients of the gates, of weight_hh, fp32, and of a bias inside the recurrent product, fp32 (S, G*D).

    For a cell without an inner gate the last one is also the gradient of a bias of the input product.

    Args:
        grad_out: (B, *grid, S*D), the gradient of `out`.
        gates: what `scan` was given, or the activations that it returned.
        weight_hh: as in `scan`.
        inner_bias: as in `scan`.
        out: h, as `scan` returned it.
        cells: c, as `scan` returned it.
        scans: as in `scan`.
        cell: as in `scan`.
        gates_are_activations: whether `gates` are activations.
        grad_gates: where the gates' gradient goes if they are activations. It may be `gates` itself.
        first: as in `scan`.
        grad_first: where the gradient of `first` goes.
        grad_last: (S, rows, D), the gradient of c after the last step; None for zeros.
    """
    from sequencer2d.ops.kernels import triton_launch

    grad_out, gates, weight_hh, scans = aligned(grad_out), aligned(gates), weight_hh.contiguous(), tuple(scans)
    if gates.numel() == 0:
        bias_sums = weight_hh.new_zeros(weight_hh.shape[:-1], dtype=torch.float32)
        return gates.new_empty(gates.shape), weight_hh.new_zeros(weight_hh.shape, dtype=torch.float32), bias_sums
    arithmetic = (devices.approximates_tanh(gates), float32_product_precision())
    recurrence = Recurrence(gates, weight_hh, inner_bias, scans, cell, *arithmetic, first)
    with devices.current(gates):
        if streamed_scans.runs(gates, weight_hh):
            return streamed_scans.scan_backward(recurrence, grad_out, out, cells, grad_first, grad_last)
        if gates_are_activations:
            from sequencer2d.ops.kernels import gluon_launch

            grad_gates = grad_recurrent = gluon_launch.launch_backward(
                grad_out,
                gates,
                weight_hh,
                cells,
                scans=scans,
                launches=tuning.choose_register_launches("backward", gates, weight_hh, scans),
                approximate_tanh=recurrence.approximate_tanh,
                grad_gates=grad_gates,
                grad_last=grad_last,
            )
        else:
            launches = tuning.choose_shared_launches("backward", gates, weight_hh, scans)
            grad_gates, grad_recurrent = triton_launch.launch_backward(
                recurrence, launches, grad_out, out, cells, grad_first=grad_first, grad_last=grad_last
            )
        grad_weight, grad_bias = triton_launch.launch_weight_gradient(recurrence, grad_recurrent, out)
    if first is not None and not recurrence.row.has_c:
        add_products_of_first_steps(grad_weight, grad_recurrent, first, scans)
    return grad_gates, grad_weight, grad_bias


def add_products_of_first_steps(
    grad_weight: Tensor, grad_recurrent: Tensor, first: Tensor, scans: Sequence[int]
) -> None:
    """Add to the gradient of W_hh, fp32 (S, G*D, D), what the h before the first step, (S, rows, D), adds to it."""
    grad_weight += first_steps(grad_recurrent, scans).float().mT @ first.float()


def recompute_scan_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    inner_bias: Tensor | None,
    out: Tensor,
    scans: tuple[int, ...],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan_backward` from h alone. If the cell has a state c, forward runs again for it.

    To save memory, activations overwrite the gates wherever the kernels can do so. `min_hidden_to_save_activations`,
    a question of speed, does not apply.
    """
    cells, gates_are_activations = out, False
    if CELLS[cell].has_c:
        overwritten = gates if runs_in_registers(gates, weight_hh, cell) else None
        _, cells, activations = scan(gates, weight_hh, inner_bias, scans, cell, True, activations=overwritten)
        gates_are_activations = activations.dim() == gates.dim()
    overwritten = gates if gates_are_activations else None
    return scan_backward(
        grad_out, gates, weight_hh, inner_bias, out, cells, scans, cell, gates_are_activations, overwritten
    )


def aligned(tensor: Tensor) -> Tensor:
    """Contiguous, and at an address that asynchronous copies accept. A view may start at any address."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()
