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

from sequencer2d.ops import derivatives, devices, launching, reference, vendor

_LIBRARY = torch.library.Library("sequencer2d", "DEF")
_LIBRARY.define(
    "scan(Tensor gates, Tensor weight_hh, Tensor? bias_n, int[] scans, str cell, bool keep, bool settled=False)"
    " -> (Tensor, Tensor, Tensor)"
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
_LIBRARY.define("normed_linear(Tensor x, Tensor shift, Tensor weight, Tensor bias, float eps, bool gelu) -> Tensor")
_LIBRARY.define("add_linear_(Tensor(a!) total, Tensor x, Tensor weight) -> ()")


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
    gates = launching.aligned(F.linear(x, weight_ih, bias))
    grad_gates, grad_weight_hh, grad_bias_hh = _kernels_or_reference(
        launching.recomputed_scans,
        lambda *_: _scan_backward_reference(grad_out, gates, weight_hh, bias_n, scans, cell),
        (grad_out, gates, weight_hh, bias_n, out, tuple(scans), cell),
        gates, weight_hh, cell,
    )  # fmt: skip
    flat = grad_gates.flatten(0, -2)
    # A copy of the other: an operator's results may not share memory.
    grad_bias = flat.sum(0, dtype=torch.float32) if cell == "gru" else grad_bias_hh.flatten().clone()
    return grad_gates @ weight_ih, flat.T @ x.flatten(0, -2), grad_bias, grad_weight_hh, grad_bias_hh


def _scan(
    gates: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor | None,
    scans: Sequence[int],
    cell: str,
    keep: bool,
    settled: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    def by_reference(*_: Any) -> tuple[Tensor, Tensor, Tensor]:
        out, *cells = reference.scan_states(gates, weight_hh, _gru_bias(bias_n), scans=scans, cell=cell)
        return out, cells[0] if keep and cells else gates.new_empty(0), gates.new_empty(0)

    arguments = (gates, weight_hh, bias_n, scans, cell, keep, settled)
    return _kernels_or_reference(launching.scan, by_reference, arguments, gates, weight_hh, cell)


def _scan_backward(
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
    arguments = (grad_out, gates, weight_hh, bias_n, out, cells, scans, cell, activated)
    if activated:
        return launching.scan_backward(*arguments)
    return _kernels_or_reference(
        launching.scan_backward,
        lambda *_: _scan_backward_reference(grad_out, gates, weight_hh, bias_n, scans, cell),
        arguments, gates, weight_hh, cell,
    )  # fmt: skip


def _kernels_or_reference(
    kernels: Callable[..., Any],
    by_reference: Callable[..., Any],
    arguments: tuple[Any, ...],
    gates: Tensor,
    weight_hh: Tensor,
    cell: str,
) -> Any:
    """Run kernels; where there are none, or where they do not compile, the reference. `rnn2d` then avoids them."""
    if gates.is_cuda or devices.interpreting():
        try:
            return kernels(*arguments)
        except devices.CompileError as error:
            problem = (cell, weight_hh.shape[-1], gates.dtype, gates.device)
            devices.rule_out(*problem, error=error, instead="PyTorch's own functions run")
    return by_reference(*arguments)


def _scan_backward_reference(
    grad_out: Tensor, gates: Tensor, weight_hh: Tensor, bias_n: Tensor | None, scans: Sequence[int], cell: str
) -> tuple[Tensor, Tensor, Tensor]:
    grad_gates, grad_weight, grad_bias_n = _differentiate(
        lambda g, w, b: reference.scan_gates(g, w, _gru_bias(b), scans=scans, cell=cell),
        [gates, weight_hh, bias_n],
        grad_out,
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
    # An operator's kernel runs below autograd, which is wanted here.
    autograd = torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.AutogradFunctionality, False)
    with autograd, torch.enable_grad():
        leaves = [None if value is None else value.detach().requires_grad_() for value in inputs]
        out = function(*leaves)
        grads = iter(torch.autograd.grad(out, [leaf for leaf in leaves if leaf is not None], grad_out))
    # The compiler was promised contiguous results; the vendors' gradients are strided as their kernels like it.
    return [None if leaf is None else next(grads).contiguous() for leaf in leaves]


def _gru_bias(bias_n: Tensor | None) -> Tensor | None:
    """(S, D) to (S, 3*D): the recurrent bias of the candidate alone; the others are in the gates."""
    return None if bias_n is None else F.pad(bias_n, (2 * bias_n.shape[-1], 0))


def _fake_scan(gates, weight_hh, bias_n, scans, cell, keep, settled=False):  # type: ignore[no-untyped-def]
    out = gates.new_empty(*gates.shape[:-1], len(scans) * weight_hh.shape[-1])
    cells = torch.empty_like(out) if keep and cell == "lstm" else gates.new_empty(0)
    activations = gates.new_empty(gates.shape if keep and launching.stationary(gates, weight_hh, cell, keep) else 0)
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


def _normed_linear(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor, eps: float, gelu: bool) -> Tensor:
    """The product of the layer norm of x (..., K) less a shift (K,) with weight (N, K); then a tanh GELU, if asked.

    For inference: the weight is read before earlier launches have ended, of which none may write it.
    """
    if launching.normed_linear_pays(x) and weight.dtype == x.dtype:
        try:
            return launching.normed_linear(x, shift, weight, bias, eps, gelu)
        except devices.CompileError as error:
            launching.rule_out_products(x, error)
    y = F.linear(F.layer_norm(x - shift, shift.shape, eps=eps), weight, bias)
    return F.gelu(y, approximate="tanh") if gelu else y


def _fake_normed_linear(x, shift, weight, bias, eps, gelu):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _add_linear(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """total (..., N) += x (..., K) @ weight.T, in place, for inference; total is contiguous.

    The sum is the product's epilogue. torch gives that epilogue a bias or a matrix, not both: there is no bias here.
    Few rows take a kernel of our own, which starts before the launch before it has ended.
    """
    if launching.few(total, x) and weight.dtype == x.dtype and total.is_contiguous():
        try:
            launching.add_linear(total, x, weight)
            return
        except devices.CompileError as error:
            launching.rule_out_products(x, error)
    total.view(-1, total.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight.t())


def _fake_add_linear(total, x, weight):  # type: ignore[no-untyped-def]
    return None


def _without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator's dtypes are settled by its arguments; a backward pass may run inside any autocast."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        with torch._C._DisableAutocast():
            return function(*arguments, **options)

    return run


def _register() -> None:
    implementations: dict[str, tuple[Callable[..., Any], ...]] = {
        "scan": (_scan, _scan, _fake_scan),
        "scan_backward": (_scan_backward, _scan_backward, _fake_scan_backward),
        "rnn2d_recomputing_backward": (_recomputing_backward, _recomputing_backward, _fake_recomputing_backward),
        "rnn2d": (_rnn2d, _rnn2d, _fake_rnn2d),
        "rnn2d_backward": (_rnn2d_backward, _rnn2d_backward, _fake_rnn2d_backward),
        "linear_gelu": (_linear_gelu_cuda, _linear_gelu, _fake_linear_gelu),
        "normed_linear": (_normed_linear, _normed_linear, _fake_normed_linear),
        "add_linear_": (_add_linear, _add_linear, _fake_add_linear),
    }
    for name, (cuda, cpu, fake) in implementations.items():
        _LIBRARY.impl(name, _without_autocast(cuda), "CUDA")
        _LIBRARY.impl(name, _without_autocast(cpu), "CPU")
        _LIBRARY.impl(name, derivatives.autograd_kernel(name), "Autograd")
        torch.library.register_fake(f"sequencer2d::{name}", fake, lib=_LIBRARY)


_register()
