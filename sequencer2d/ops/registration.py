"""Custom operators, so that torch.compile, torch.export and CUDA graphs see one node where a recurrence runs.

Registered through `Library.define` and `impl` with an `autograd.Function` above them: half the host overhead of
`custom_op` with `register_autograd`. The kernels behind them import Triton only when they run.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.ops import reference, vendor

_LIBRARY = torch.library.Library("sequencer2d", "DEF")
_LIBRARY.define(
    "scan(Tensor gates, Tensor weight_hh, Tensor? bias_n, int[] scans, str cell, bool keep) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "scan_backward(Tensor grad_out, Tensor gates, Tensor weight_hh, Tensor? bias_n, Tensor out, Tensor cells, "
    "int[] scans, str cell, bool activated) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "rnn2d_recomputing_backward(Tensor grad_out, Tensor x, Tensor weight_ih, Tensor? bias, Tensor weight_hh, "
    "Tensor? bias_n, Tensor out, int[] scans, str cell) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "rnn2d(Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, int[] scans, str cell)"
    " -> Tensor"
)
_LIBRARY.define(
    "rnn2d_backward(Tensor grad_out, Tensor x, Tensor weight_ih, Tensor weight_hh, Tensor? bias_ih, Tensor? bias_hh, "
    "int[] scans, str cell) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define("linear_gelu(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
_LIBRARY.define("add_linear_(Tensor(a!) total, Tensor x, Tensor weight) -> ()")


def scan_triton(
    gates: Tensor, weight_hh: Tensor, bias_n: Tensor | None, scans: Sequence[int], cell: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The fused forward: gates (B, H, W, S*G*D) to h (B, H, W, S*D) and, if backward is to come, what to keep for it.

    That is c (as h; the LSTM's) and the gates' activations (as gates), where backward reads them instead of the gates;
    what is not kept is empty.
    """
    return _scan(gates.contiguous(), weight_hh, bias_n, tuple(scans), cell, keep, None)


def _scan(
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    scans: tuple[int, ...],
    cell: str,
    keep: bool,
    activations: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan_triton`, the activations to go to a given place: it may be that of the gates."""
    from sequencer2d.ops import tuning

    weight_hh = weight_hh.contiguous()
    with _on(gates):
        if stationary(gates, weight_hh, cell, keep and activations is None):
            from sequencer2d.ops import gluon_forward

            launches = tuning.choose_stationary("training" if keep else "forward", gates, weight_hh, scans)
            return gluon_forward.launch_forward(
                gates, weight_hh, scans=scans, save=keep, launches=launches, fast=_fast(gates), activations=activations
            )
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
    from sequencer2d.ops import tuning

    if cell != "lstm" or gates.device.type != "cuda" or gates.dtype not in (torch.float16, torch.bfloat16):
        return False
    hidden = int(weight_hh.shape[-1])  # a compiler's symbol, if it was asked for dynamic shapes
    return hidden in tuning.STATIONARY and (hidden >= tuning.KEEPING or not keep) and _has_gluon()


@functools.cache
def _has_gluon() -> bool:
    """Whether Triton has the Gluon that the kernels are written in: an experimental part of it, from 3.6 on."""
    import triton

    major, minor = (int(part) for part in triton.__version__.split(".")[:2])
    return (3, 6) <= (major, minor) < (4, 0)


def scan_backward_triton(
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
    return _scan_backward(
        grad_out, gates.contiguous(), weight_hh, bias_n, out, cells, tuple(scans), cell, activated, None
    )


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
    """`scan_backward_triton`; the gates' gradient may go to the place of activations."""
    from sequencer2d.ops import triton_backward, tuning

    grad_out, weight_hh = grad_out.contiguous(), weight_hh.contiguous()
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


def _recomputing_backward(
    grad_out: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    bias: Tensor | None,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    out: Tensor,
    scans: Sequence[int],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight_ih, bias, weight_hh, and as `scan_backward`'s third, with forward done again.

    One operator, because a compiler that sees the second product merges it with the first and stores its result; and
    activations and gradients can take the place of the gates.
    """
    gates = F.linear(x, weight_ih, bias)
    if gates.is_cuda or _interpreting():
        grad_gates, grad_weight_hh, grad_bias_hh = _recomputed_scans(
            grad_out, gates.contiguous(), weight_hh, bias_n, out, tuple(scans), cell
        )
    else:
        grad_gates, grad_weight_hh, grad_bias_hh = _scan_backward_cpu(
            grad_out, gates, weight_hh, bias_n, out, out, scans, cell, False
        )
    flat = grad_gates.flatten(0, -2)
    grad_bias = flat.sum(0, dtype=torch.float32) if cell == "gru" else grad_bias_hh.flatten()
    return grad_gates @ weight_ih, flat.T @ x.flatten(0, -2), grad_bias, grad_weight_hh, grad_bias_hh


def _recomputed_scans(
    grad_out: Tensor,
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    out: Tensor,
    scans: tuple[int, ...],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """`scan_backward` from h alone. The GRU's and the RNN's backward needs no more; the LSTM's c is computed again."""
    cells, activated = out, False
    if cell == "lstm":
        activated = stationary(gates, weight_hh, cell)
        _, cells, _ = _scan(gates, weight_hh, bias_n, scans, cell, True, gates if activated else None)
    place = gates if activated else None
    return _scan_backward(grad_out, gates, weight_hh, bias_n, out, cells, scans, cell, activated, place)


def _scan_cpu(
    gates: Tensor, weight_hh: Tensor, bias_n: Tensor | None, scans: Sequence[int], cell: str, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if _interpreting():
        return scan_triton(gates, weight_hh, bias_n, scans, cell, keep)
    out = reference.scan_gates(gates, weight_hh, _gru_bias(bias_n), scans=scans, cell=cell)
    # The reference's backward starts from the gates alone; the placeholder keeps the operator's promise of a shape.
    cells = torch.zeros_like(out) if keep and cell == "lstm" else gates.new_empty(0)
    return out, cells, gates.new_empty(0)


def _scan_backward_cpu(
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
    if _interpreting():
        return scan_backward_triton(grad_out, gates, weight_hh, bias_n, out, cells, scans, cell, activated)
    inputs = [gates, weight_hh, bias_n]
    grad_gates, grad_weight, grad_bias_n = _differentiate(
        lambda g, w, b: reference.scan_gates(g, w, _gru_bias(b), scans=scans, cell=cell), inputs, grad_out
    )
    assert grad_gates is not None
    assert grad_weight is not None
    sums = grad_gates.flatten(0, -2).sum(0).view(len(scans), -1)
    if grad_bias_n is not None:
        sums = torch.cat([sums[:, : -grad_bias_n.shape[1]], grad_bias_n], 1)
    return grad_gates, grad_weight, sums.float()


def _rnn2d(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    scans: Sequence[int],
    cell: str,
) -> Tensor:
    return vendor.rnn2d_vendor(x, weight_ih, weight_hh, bias_ih, bias_hh, scans=scans, cell=cell).contiguous()


def _rnn2d_backward(
    grad_out: Tensor,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    scans: Sequence[int],
    cell: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs = [x, weight_ih, weight_hh, bias_ih, bias_hh]
    grads = _differentiate(functools.partial(_rnn2d, scans=scans, cell=cell), inputs, grad_out)
    return tuple(x.new_empty(0) if grad is None else grad for grad in grads)  # type: ignore[return-value]


def _differentiate(function, inputs: list[Tensor | None], grad_out: Tensor) -> list[Tensor | None]:  # type: ignore[no-untyped-def]
    """Vector-Jacobian product by running the function again: for operators whose forward kept no graph."""
    with torch.enable_grad():
        leaves = [None if value is None else value.detach().requires_grad_() for value in inputs]
        out = function(*leaves)
        grads = iter(torch.autograd.grad(out, [leaf for leaf in leaves if leaf is not None], grad_out))
    # The compiler was promised contiguous results; the vendors' gradients are strided as their kernels like it.
    return [None if leaf is None else next(grads).contiguous() for leaf in leaves]


def _gru_bias(bias_n: Tensor | None) -> Tensor | None:
    """(S, D) to (S, 3*D): the recurrent bias of the candidate alone; the others are in the gates."""
    return None if bias_n is None else F.pad(bias_n, (2 * bias_n.shape[-1], 0))


def _fake_scan(gates, weight_hh, bias_n, scans, cell, keep):  # type: ignore[no-untyped-def]
    out = gates.new_empty(*gates.shape[:-1], len(scans) * weight_hh.shape[-1])
    cells = torch.empty_like(out) if keep and cell == "lstm" else gates.new_empty(0)
    activations = gates.new_empty(gates.shape if keep and stationary(gates, weight_hh, cell, keep) else 0)
    return out, cells, activations


def _fake_scan_backward(grad_out, gates, weight_hh, bias_n, out, cells, scans, cell, activated):  # type: ignore[no-untyped-def]
    return gates.new_empty(gates.shape), weight_hh.new_empty(weight_hh.shape), _fake_sums(weight_hh)


def _fake_recomputing_backward(grad_out, x, weight_ih, bias, weight_hh, bias_n, out, scans, cell):  # type: ignore[no-untyped-def]
    return (
        x.new_empty(x.shape),
        weight_ih.new_empty(weight_ih.shape),
        _fake_sums(weight_hh).flatten(),
        weight_hh.new_empty(weight_hh.shape),
        _fake_sums(weight_hh),
    )


def _fake_sums(weight_hh: Tensor) -> Tensor:
    return weight_hh.new_empty(weight_hh.shape[:-1], dtype=torch.float32)


def _fake_rnn2d(x, weight_ih, weight_hh, bias_ih, bias_hh, scans, cell):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], len(scans) * weight_hh.shape[-1])


def _fake_rnn2d_backward(grad_out, x, weight_ih, weight_hh, bias_ih, bias_hh, scans, cell):  # type: ignore[no-untyped-def]
    grads = [value.new_empty(value.shape) for value in (x, weight_ih, weight_hh)]
    return *grads, _like(bias_ih, x), _like(bias_hh, x)


def _like(value: Tensor | None, other: Tensor) -> Tensor:
    return other.new_empty(0) if value is None else value.new_empty(value.shape)


def _linear_gelu_cuda(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """gelu(x @ weight.T + bias), for inference; in 16 bits with the GELU's tanh form in the product's epilogue."""
    if x.dtype not in (torch.float16, torch.bfloat16):
        return _linear_gelu(x, weight, bias)
    if bias is None:
        return F.gelu(F.linear(x, weight), approximate="tanh")
    out = torch._addmm_activation(bias, x.reshape(-1, x.shape[-1]), weight.t(), use_gelu=True)
    return out.view(*x.shape[:-1], weight.shape[0])


def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.gelu(F.linear(x, weight, bias))


def _fake_linear_gelu(x, weight, bias):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _add_linear(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """total (..., N) += x (..., K) @ weight.T, in place, for inference; total is contiguous.

    The sum is the product's epilogue. torch gives that epilogue a bias or a matrix, not both: there is no bias here.
    """
    total.view(-1, total.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())


def _fake_add_linear(total, x, weight):  # type: ignore[no-untyped-def]
    return None


def _on(tensor: Tensor) -> torch.cuda.device:
    """Triton launches on the current device: make it the tensor's. Does nothing on a CPU (the interpreter)."""
    return torch.cuda.device(tensor.device.index if tensor.is_cuda else -1)


def _fast(gates: Tensor) -> bool:
    """The hardware's tanh errs by 2^-11: below bf16's own rounding, not below that of fp16 and fp32."""
    return gates.dtype is torch.bfloat16 and gates.is_cuda


def _precision() -> str:
    """Of fp32 products: TF32 if the user allowed it, else three TF32 products, which come to fp32's accuracy."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def _interpreting() -> bool:
    import os

    return os.environ.get("TRITON_INTERPRET") == "1"


def _register() -> None:
    implementations: dict[str, tuple[Callable[..., Any], ...]] = {
        "scan": (scan_triton, _scan_cpu, _fake_scan),
        "scan_backward": (scan_backward_triton, _scan_backward_cpu, _fake_scan_backward),
        "rnn2d_recomputing_backward": (_recomputing_backward, _recomputing_backward, _fake_recomputing_backward),
        "rnn2d": (_rnn2d, _rnn2d, _fake_rnn2d),
        "rnn2d_backward": (_rnn2d_backward, _rnn2d_backward, _fake_rnn2d_backward),
        "linear_gelu": (_linear_gelu_cuda, _linear_gelu, _fake_linear_gelu),
        "add_linear_": (_add_linear, _add_linear, _fake_add_linear),
    }
    for name, (cuda, cpu, fake) in implementations.items():
        _LIBRARY.impl(name, cuda, "CUDA")
        _LIBRARY.impl(name, cpu, "CPU")
        torch.library.register_fake(f"sequencer2d::{name}", fake, lib=_LIBRARY)


_register()
