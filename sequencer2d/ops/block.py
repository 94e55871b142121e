"""A whole block, x + mixer(LN(x)) and then x + MLP(LN(x)), as one autograd node, for eager PyTorch.

There, the GPU waits for the host: each operator and each launch costs the host several microseconds, and autograd runs
a node for each operator. The node here calls what the block needs and nothing else. It copies and casts the weights in
one launch, computes layer norms in the dtype of the tokens, and adds residuals in place.

Suffixes: B batch, H rows, W columns, T tokens (B*H*W), C channels, S scans, G gates, D hidden units, M hidden channels
of the MLP.
"""

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.nn import functional as F
from torch.utils._device import DeviceContext

from sequencer2d.ops import devices, scan_operators
from sequencer2d.ops.block_weights import cut, pack
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.fused import refuse_double_backward
from sequencer2d.ops.precision import compute_dtype, runs_under_autocast
from sequencer2d.ops.rnn2d import choose_implementation

# Python's fastest way of reading an attribute of many tensors: small batches wait for Python.
SHAPE_OF, DTYPE_OF, DEVICE_OF = map(operator.attrgetter, ("shape", "dtype", "device"))
_HAS_WIDER_PRODUCT = "dtype" in torch.ops.aten.mm.overloads()


class BlockOptions(NamedTuple):
    """What describes a block besides its weights.

    Attributes:
        scans: of the mixer, as in `rnn2d`.
        cell: of the mixer.
        implementation: of the recurrence, as in `rnn2d`.
        is_flat: whether the mixer takes all tokens as one sequence.
        eps: of the two layer norms.
    """

    scans: tuple[int, ...]
    cell: str
    implementation: str
    is_flat: bool
    eps: tuple[float, float]


def runs_eagerly() -> bool:
    """Whether PyTorch runs eagerly without a compiler, exporter, tracer, mode or transform that would see the calls."""
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack() > 0
        or (torch._C._len_torch_function_stack() > 0 and not _are_default_devices())
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def _are_default_devices() -> bool:
    """Whether all modes for functions are `torch.set_default_device`'s, which no call of a block's is a matter of."""
    numbers = range(torch._C._len_torch_function_stack())
    return all(type(torch._C._get_function_stack_at(number)) is DeviceContext for number in numbers)


def takes(x: Tensor, weights: Sequence[Tensor], options: BlockOptions) -> bool:
    """Whether `run_block` takes the arguments. Where it does not, the layers run one by one."""
    row, dtype, device = CELLS[options.cell], weights[0].dtype, x.device
    if row.inner_gate is not None or not row.recurrent or x.ndim != 4 or x.numel() == 0:
        return False
    if x.dtype is not (compute_dtype(x) if runs_under_autocast(x) else dtype):
        return False
    slots = len(options.scans)
    hidden, mlp = weights[slots].shape[-1], weights[4 * slots + 2].shape[0]
    shapes = _shapes(slots, row.gates, hidden, x.shape[-1], mlp)
    if list(map(SHAPE_OF, weights)) != shapes or set(map(DTYPE_OF, weights)) != {dtype}:
        return False
    if set(map(DEVICE_OF, weights)) != {device}:
        return False
    named: dict[str, Any] = {"scans": options.scans, "cell": options.cell, "implementation": options.implementation}
    is_fused = choose_implementation(x, hidden, **named) == "triton"
    return is_fused and devices.problem("blocks", device.type, device.index) is None


@functools.cache
def _shapes(slots: int, gates: int, hidden: int, channels: int, mlp: int) -> list[tuple[int, ...]]:
    """The shapes of a block's weights in the order of `run_block`."""
    rows = gates * hidden
    recurrent = [(rows, channels)] * slots + [(rows, hidden)] * slots + [(rows,)] * (2 * slots)
    linear = [(channels, slots * hidden), (channels,), (mlp, channels), (mlp,), (channels, mlp), (channels,)]
    return [*recurrent, *linear, *[(channels,)] * 4]


def run_block(
    x_BHWC: Tensor,
    weights: Sequence[Tensor],
    options: BlockOptions,
    masks: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Tensor:
    """The block's output, (B, H, W, C) to (B, H, W, C).

    Args:
        x_BHWC: tokens; see `takes`.
        weights: weight_ih (G*D, C) of each scan, weight_hh (G*D, D) of each, bias_ih (G*D,), bias_hh; then weight and
            bias of the mixer's linear layer, of the MLP's two, of the first norm and of the second.
        options: what else describes the block.
        masks: the factor of stochastic depth for each branch, (B, 1, 1, 1); None for 1.
    """
    if torch.is_grad_enabled() and (x_BHWC.requires_grad or any(weight.requires_grad for weight in weights)):
        return Block.apply(x_BHWC, options, *masks, *weights)  # type: ignore[no-any-return]
    with torch._C._DisableAutocast(), devices.current(x_BHWC):
        return _forward(x_BHWC, weights, options, masks, save=False)[0]


def _forward(
    x_BHWC: Tensor,
    weights: Sequence[Tensor],
    options: BlockOptions,
    masks: tuple[Tensor | None, Tensor | None],
    *,
    save: bool,
) -> tuple[Tensor, tuple[Any, ...]]:
    """The output and the tensors that backward reads."""
    from sequencer2d.ops.kernels import triton_block_launch as kernels

    batch, height, width, channels = x_BHWC.shape
    w = pack(weights, len(options.scans), x_BHWC.dtype, keep=save)
    norm1, norm1_bias, norm2, norm2_bias = weights[-4:]
    x = x_BHWC.reshape(-1, channels).contiguous()
    _, normed1, mean1, scale1 = kernels.add_norm(x, None, None, norm1, norm1_bias, options.eps[0], save)
    grid = (batch, 1, height * width, -1) if options.is_flat else (batch, height, width, -1)
    gates = F.linear(normed1, w.weight_ih, w.bias).view(grid)
    hidden, cells, activations = scan_operators.scan(gates, w.weight_hh, None, options.scans, options.cell, save)
    saves_activations = activations.dim() == 4
    saved: list[Tensor | None] = (
        [x, normed1, mean1, scale1, activations if saves_activations else gates, hidden, cells] if save else []
    )
    del normed1, gates, cells, activations  # frees what is not saved
    branch = F.linear(hidden.flatten(0, -2), w.fc, w.fc_bias)
    del hidden
    between, normed2, mean2, scale2 = kernels.add_norm(x, branch, masks[0], norm2, norm2_bias, options.eps[1], save)
    del branch
    expanded = F.linear(normed2, w.fc1, w.fc1_bias)
    if save:
        saved += [between, normed2, mean2, scale2, expanded]
        saved += [*masks, w.weight_ih, w.weight_hh, w.fc, w.fc1, w.fc2, norm1, norm2]
    del normed2
    active = F.gelu(expanded)
    del expanded
    out = _add(between, F.linear(active, w.fc2, w.fc2_bias), masks[1]).view(x_BHWC.shape)
    return out, (saves_activations, *saved)


def _add(x_TC: Tensor, branch_TC: Tensor, mask: Tensor | None) -> Tensor:
    """x + mask * branch, (T, C), in the memory of `branch_TC` if there is no mask."""
    if mask is None:
        return branch_TC.add_(x_TC)
    by_image = (mask.shape[0], -1, x_TC.shape[-1])
    return torch.addcmul(x_TC.view(by_image), branch_TC.view(by_image), mask.flatten(1)[..., None]).view(x_TC.shape)


class Block(torch.autograd.Function):
    """See `run_block`. Saves the inputs of norms, products, scans and GELU, and the copy of the weights.

    The output of GELU is recomputed.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, options: BlockOptions, mask1: Tensor | None, mask2: Tensor | None, *weights: Tensor
    ) -> Tensor:
        with torch._C._DisableAutocast(), devices.current(x):
            out, (ctx.saved_activations, *saved) = _forward(x, weights, options, (mask1, mask2), save=True)
        ctx.save_for_backward(*saved)
        ctx.options, ctx.dtype = options, weights[0].dtype
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> Any:  # type: ignore[override]
        refuse_double_backward()
        with torch._C._DisableAutocast(), devices.current(grad_out):
            grad_x, grads = _backward(grad_out, ctx.saved_tensors, ctx.options, ctx.saved_activations, ctx.dtype)
        needed = zip(grads, ctx.needs_input_grad[4:], strict=True)
        return grad_x, None, None, None, *(grad if need else None for grad, need in needed)


def _backward(
    grad_out: Tensor, saved: Sequence[Tensor], options: BlockOptions, saved_activations: bool, dtype: torch.dtype
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of the tokens and, in `dtype`, of all weights."""
    from sequencer2d.ops.kernels import triton_block_launch as kernels

    (
        x, normed1, mean1, scale1, gates, hidden, cells, between, normed2, mean2, scale2, expanded, mask1, mask2,
        weight_ih, weight_hh, fc, fc1, fc2, norm1, norm2,
    ) = saved  # fmt: skip
    (channels, mlp), (_, rows, hidden_units) = fc2.shape, weight_hh.shape
    # The vectors' gradients, in the order of the weights; see `run_block`.
    widths = [channels, mlp, channels, 2 * channels, 2 * channels]
    at_fc, at_fc1, at_fc2, at_norm1, at_norm2 = itertools.accumulate([0, *widths[:-1]])
    sums = kernels.new_sums(x, sum(widths))
    grad = grad_out.reshape(x.shape).contiguous()
    grad_branch = kernels.apply_mask(grad, mask2, sums, at_fc2)
    grad_expanded = torch.mm(grad_branch, fc2)
    active = kernels.gelu_backward_(grad_expanded, expanded, sums, at_fc1)
    grad_fc2 = product(grad_branch.t(), active, dtype)
    del active
    grad_fc1 = product(grad_expanded.t(), normed2, dtype)
    grad_between, grad_branch = kernels.add_norm_backward(
        torch.mm(grad_expanded, fc1), grad, (between, mean2, scale2), norm2, mask1, sums, at_norm2, at_fc
    )
    del grad_expanded
    grad_fc = product(grad_branch.t(), hidden.flatten(0, -2), dtype)
    grad_gates, grad_weight_hh, grad_bias = scan_operators.scan_gradients(
        torch.mm(grad_branch, fc).view(hidden.shape), gates, weight_hh, None, hidden, cells, options.scans,
        options.cell, saved_activations,
    )  # fmt: skip
    flat_gates = grad_gates.flatten(0, -2)
    grad_weight_ih = product(flat_gates.t(), normed1, dtype)
    grad_x, _ = kernels.add_norm_backward(
        torch.mm(flat_gates, weight_ih), grad_between, (x, mean1, scale1), norm1, None, sums, at_norm1, None
    )
    vectors = sums.sum(0)
    if dtype is not torch.float32:
        vectors, grad_weight_hh, grad_bias = vectors.to(dtype), grad_weight_hh.to(dtype), grad_bias.to(dtype)
    fc_bias, fc1_bias, fc2_bias, *norms = torch.unsafe_split_with_sizes(vectors, [*widths[:3], *[channels] * 4])
    return grad_x.view(grad_out.shape), [
        *cut(grad_weight_ih, rows),
        *cut(grad_weight_hh.reshape(-1, hidden_units), rows),
        *cut(grad_bias.reshape(-1), rows),
        *cut(grad_bias.reshape(-1).clone(), rows),  # each bias has a gradient that may be changed in place
        grad_fc, fc_bias, grad_fc1, fc1_bias, grad_fc2, fc2_bias, *norms,
    ]  # fmt: skip


def product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left @ right in another dtype. PyTorch 2.8 and later return the sums of the product unrounded on CUDA."""
    if left.dtype is dtype:
        return torch.mm(left, right)
    if left.is_cuda and _HAS_WIDER_PRODUCT and dtype is torch.float32:
        return torch.mm(left, right, out_dtype=dtype)  # type: ignore[call-overload,no-any-return]
    return torch.mm(left, right).to(dtype)
