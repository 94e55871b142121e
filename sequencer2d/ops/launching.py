"""Which kernels run a recurrence, and how: W_hh in registers where they can have it, else in shared memory.

Kernels, and Triton with them, are imported when one runs. The operators around these functions are `registration`'s.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from sequencer2d.ops import devices, tuning
from sequencer2d.ops.precision import allows_tf32

_PRODUCTS = "products of few rows,"


def scan(
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    scans: Sequence[int],
    cell: str,
    keep: bool,
    settled: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The fused forward: gates (B, H, W, S*G*D) to h (B, H, W, S*D) and, if backward is to come, what to keep for it.

    That is c (as h; the LSTM's) and the gates' activations (as gates), where backward reads them instead of the gates;
    what is not kept is empty. settled: no launch that may still be running writes weight_hh, so it may be read at once.
    """
    return _scan(aligned(gates), weight_hh, bias_n, tuple(scans), cell, keep, None, settled)


def _scan(
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    scans: tuple[int, ...],
    cell: str,
    keep: bool,
    activations: Tensor | None,
    settled: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan`, the activations to go to a given place: it may be that of the gates."""
    settled = settled and weight_hh.is_contiguous()
    weight_hh = weight_hh.contiguous()
    if gates.numel() == 0:
        return _scan_nothing(gates, weight_hh, cell, keep, activations)
    with _on(gates):
        if stationary(gates, weight_hh, cell, keep and activations is None):
            from sequencer2d.ops import gluon_forward

            launches = tuning.choose_stationary("training" if keep else "forward", gates, weight_hh, scans)
            try:
                return gluon_forward.launch_forward(
                    gates,
                    weight_hh,
                    scans=scans,
                    save=keep,
                    launches=launches,
                    fast=_fast(gates),
                    early=settled and devices.starts_early(gates.device),
                    activations=activations,
                )
            except devices.CompileError as error:
                devices.rule_out(*_registers_key(gates, weight_hh), error=error, instead="W_hh goes to shared memory")
        from sequencer2d.ops import triton_forward

        out, cells = triton_forward.launch_forward(
            gates,
            weight_hh,
            bias_n,
            scans=scans,
            cell=cell,
            save_cells=keep and cell == "lstm",
            launches=tuning.choose("forward", gates, weight_hh, scans),
            fast=_fast(gates),
            precision=_precision(),
        )
        return out, cells, gates.new_empty(0)


def stationary(gates: Tensor, weight_hh: Tensor, cell: str, keep: bool = False) -> bool:
    """Whether the kernels run that keep W_hh in registers: the LSTM in 16 bits, of some hidden sizes, on a GPU.

    keep: if activations are kept from forward to backward.
    """
    if cell != "lstm" or gates.device.type != "cuda" or gates.dtype not in (torch.float16, torch.bfloat16):
        return False
    hidden = int(weight_hh.shape[-1])  # a compiler's symbol, if it was asked for dynamic shapes
    if hidden not in tuning.STATIONARY or (keep and hidden < tuning.KEEPING):
        return False
    if devices.problem("registers", gates.device.type, gates.device.index) is not None:
        return False
    return devices.ruled_out(*_registers_key(gates, weight_hh)) is None


def _registers_key(gates: Tensor, weight_hh: Tensor) -> tuple[Hashable, ...]:
    return "W_hh in registers,", int(weight_hh.shape[-1]), gates.dtype, gates.device


def _scan_nothing(
    gates: Tensor, weight_hh: Tensor, cell: str, keep: bool, activations: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The results of a grid without images, rows or columns, which no kernel may be asked for."""
    kept = keep and activations is None and stationary(gates, weight_hh, cell, keep)
    out = gates.new_empty(*gates.shape[:-1], weight_hh.shape[0] * weight_hh.shape[-1])
    cells = torch.empty_like(out) if keep and cell == "lstm" else gates.new_empty(0)
    return out, cells, gates.new_empty(gates.shape if kept else 0)


def scan_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    out: Tensor,
    cells: Tensor,
    scans: Sequence[int],
    cell: str,
    activated: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gates, of weight_hh, and of a bias beside the recurrent product: (S, G*D) in fp32.

    For the LSTM and the RNN the last is that of a bias beside the input product, too. activated: `gates` are what
    forward kept in their place.
    """
    return _scan_backward(grad_out, aligned(gates), weight_hh, bias_n, out, cells, tuple(scans), cell, activated, None)


def _scan_backward(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    out: Tensor,
    cells: Tensor,
    scans: tuple[int, ...],
    cell: str,
    activated: bool,
    grad_gates: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan_backward`; the gates' gradient may go to the place of activations."""
    from sequencer2d.ops import triton_backward

    grad_out, weight_hh = aligned(grad_out), weight_hh.contiguous()
    if gates.numel() == 0:
        sums = weight_hh.new_zeros(weight_hh.shape[:-1], dtype=torch.float32)
        return gates.new_empty(gates.shape), torch.zeros_like(weight_hh), sums
    with _on(gates):
        if activated:
            from sequencer2d.ops import gluon_backward

            launches = tuning.choose_stationary("backward", gates, weight_hh, scans)
            grad_gates = grad_rec = gluon_backward.launch_backward(
                grad_out,
                gates,
                weight_hh,
                cells,
                scans=scans,
                launches=launches,
                fast=_fast(gates),
                grad_gates=grad_gates,
            )
        else:
            grad_gates, grad_rec = triton_backward.launch_backward(
                grad_out,
                gates,
                weight_hh,
                bias_n,
                out,
                cells,
                scans=scans,
                cell=cell,
                launches=tuning.choose("backward", gates, weight_hh, scans),
                fast=_fast(gates),
                precision=_precision(),
            )
        grad_weight, grad_bias = triton_backward.launch_weight_gradient(
            grad_rec, out, scans=scans, hidden=weight_hh.shape[-1], cell=cell, precision=_precision()
        )
    return grad_gates, grad_weight.to(weight_hh.dtype), grad_bias


def recomputed_scans(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    out: Tensor,
    scans: tuple[int, ...],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan_backward` from h alone. The GRU's and the RNN's backward needs no more; the LSTM's c is computed again.

    Activations take the place of the gates, for the sake of memory; `tuning.KEEPING`, about speed, does not count.
    """
    cells, activated = out, False
    if cell == "lstm":
        place = gates if stationary(gates, weight_hh, cell) else None
        _, cells, activations = _scan(gates, weight_hh, bias_n, scans, cell, True, place)
        activated = activations.dim() == gates.dim()
    place = gates if activated else None
    return _scan_backward(grad_out, gates, weight_hh, bias_n, out, cells, scans, cell, activated, place)


def few(stream: Tensor, x: Tensor) -> bool:
    """Whether a product from or to the residual stream (..., C) has so few rows that our own kernels pay.

    x: the product's input, whose last dimension must make whole chunks.
    """
    return (
        # First, so that a trace for a device without them does not come to depend on the number of rows.
        devices.problem("products", stream.device.type, stream.device.index) is None
        and x.dtype == stream.dtype
        and x.dtype in (torch.float16, torch.bfloat16)
        and x.shape[-1] % 16 == 0
        and stream.numel() <= tuning.FEW
        and (torch.compiler.is_compiling() or devices.ruled_out(_PRODUCTS, x.dtype, x.device) is None)
    )


def rule_out_products(x: Tensor, error: Exception) -> None:
    """Have the vendor's products run from now on, as the kernels for few rows do not compile."""
    devices.rule_out(_PRODUCTS, x.dtype, x.device, error=error, instead="PyTorch's own products run")


def normed_linear_pays(x: Tensor) -> bool:
    """Whether a norm and a product of tokens x (..., C) are faster in one launch than in two."""
    return few(x, x) and x.shape[-1] <= tuning.MOST_NORMED


def normed_linear(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, gelu: bool) -> Tensor:
    """The fused product with a layer norm before it, see `registration`; few rows only."""
    from sequencer2d.ops import triton_linear

    early = devices.starts_early(x.device) and weight.is_contiguous()
    x, shift, weight, bias = (tensor.contiguous() for tensor in (x, shift, weight, bias))
    with _on(x):
        return triton_linear.launch_normed_linear(x, shift, weight, bias, eps, gelu=gelu, fast=_fast(x), early=early)


def add_linear(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """The fused product added to a contiguous tensor, see `registration`; few rows only."""
    from sequencer2d.ops import triton_linear

    with _on(x):
        triton_linear.launch_add_linear(
            total, x.contiguous(), weight.contiguous(), early=devices.starts_early(x.device)
        )


def aligned(tensor: Tensor) -> Tensor:
    """Contiguous, and at an address that asynchronous copies take: a view may begin anywhere."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def _on(tensor: Tensor) -> torch.cuda.device:
    """Triton launches on the current device: make it the tensor's. Does nothing on a CPU (the interpreter)."""
    return torch.cuda.device(tensor.device.index if tensor.is_cuda else -1)


def _fast(gates: Tensor) -> bool:
    """The hardware's tanh errs by 2^-11: below bf16's own rounding, not below that of fp16 and fp32."""
    return gates.dtype is torch.bfloat16 and gates.is_cuda


def _precision() -> str:
    """Of fp32 products: TF32 if the user allowed it, else three TF32 products, which come to fp32's accuracy."""
    return "tf32" if allows_tf32() else "tf32x3"
