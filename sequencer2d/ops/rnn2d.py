"""The public operation: every recurrence of a token mixer over a grid of tokens, with an explicit implementation.

Suffixes: B batch, H rows, W columns, C input channels, S scans, G gates, D hidden units.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sequencer2d.choices import GATES
from sequencer2d.errors import ImplementationError, InputError
from sequencer2d.ops import compiled, derivatives, fused, measured, reference, vendor
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.weights import Weights

IMPLEMENTATIONS = ("auto", "reference", "aten", "cudnn", "triton")


def rnn2d(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    scans: Sequence[int] = (0, 1, 2, 3),
    cell: str = "lstm",
    implementation: str = "auto",
    gates: str = "stored",
) -> Tensor:
    """Recurrences over a grid, vertical and horizontal, forward and backward (paper, section 3.2, eq. 5-7).

    The grid may have any number of axes: a sequence (B, T, C), images (B, H, W, C), videos (B, T, H, W, C).

    Args:
        x: (B, H, W, C) tokens, or those of another grid.
        weight_ih: (S, G·D, C) input weights, one matrix a scan; gate order as torch's.
        weight_hh: (S, G·D, D) recurrent weights.
        bias_ih: (S, G·D), or None for no biases.
        bias_hh: (S, G·D), or None for no biases.
        scans: what each slot runs. For images 0 is top to bottom, 1 bottom to top, 2 left to right, 3 right to left; in
            general 2·a is forward along axis a of the grid, 2·a + 1 backward.
        cell: "lstm", "gru" or "rnn" (tanh).
        implementation: "reference" (plain PyTorch), "aten" (PyTorch's CPU kernels), "cudnn", "triton" (fused, CUDA) or
            "auto", the fastest that takes these arguments; `choose_implementation` says which that is.
        gates: for training through "triton": "stored" keeps the gates, or their activations, and the LSTM's c for
            backward, "recomputed" does the input product and, for the LSTM, the recurrence again (S·(G+1)·D fewer
            values a token in memory, S·G·D for the other cells).

    Returns:
        (B, grid, S·D) hidden states, scan by scan in the order of `scans`, in the dtype of x (autocast's under
        autocast).

    Raises:
        InputError: shapes that do not fit together, or an unknown cell, scan or choice of gates.
        ImplementationError: a named implementation that cannot take these arguments.
    """
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    _check(x, weights, scans, cell, gates)
    chosen = choose_implementation(x, weight_hh.shape[-1], scans=scans, cell=cell, implementation=implementation)
    if chosen == "triton":
        return fused.rnn2d_fused(x, weights, scans=scans, cell=cell, recompute=gates == "recomputed")
    # On the meta device, for shapes alone, the reference would take its thousands of steps.
    shapes_alone = x.is_meta and implementation == "auto" and not derivatives.transforms()
    if chosen == "reference" and not shapes_alone:
        return reference.rnn2d_reference(x, weights, scans=scans, cell=cell)
    if torch.compiler.is_compiling() or shapes_alone:
        return compiled.rnn2d_compiled(x, weights, scans=scans, cell=cell)
    return vendor.rnn2d_vendor(x, weights, scans=scans, cell=cell)


def choose_implementation(
    x: Tensor,
    hidden: int,
    *,
    scans: Sequence[int] = (0, 1, 2, 3),
    cell: str = "lstm",
    implementation: str = "auto",
    kernels_are_faster: bool | None = None,
) -> str:
    """The implementation that `rnn2d` runs for an input x with `hidden` units: the named one, or auto's choice.

    kernels_are_faster: whether "auto" takes the fused kernels before cuDNN. None: as for a grid.

    Raises:
        ImplementationError: an unknown name, or a named implementation that cannot take the arguments, and why.

    Under torch.func's transforms "auto" takes an implementation that they work on: "reference", or "aten" for grad on a
    CPU. Under torch.jit.trace it takes one that a trace can run on grids of other sizes: "aten" or "cudnn".
    """
    if implementation not in IMPLEMENTATIONS:
        raise ImplementationError(
            f"unknown implementation {implementation!r} of the recurrence; choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    if implementation != "auto":
        reason = _refusal(implementation, x, hidden, scans, cell)
        if reason:
            raise ImplementationError(f"implementation {implementation!r} cannot run: {reason}")
        return implementation
    # Only a named "triton" runs on a CPU, in Triton's interpreter: it is for finding mistakes in the kernels.
    if kernels_are_faster is None:
        kernels_are_faster = measured.are_kernels_faster_on_grids(x, hidden)
    kernels = ("triton",) if kernels_are_faster else ()
    for name in (*kernels, "cudnn") if x.is_cuda else ("aten",):
        if not _refusal(name, x, hidden, scans, cell):
            return name
    if reason := _refusal("reference", x, hidden, scans, cell):
        raise ImplementationError(f"no implementation takes these arguments: {reason}")
    return "reference"


# What of torch.func an implementation does not take.
_UNTRANSFORMED = {
    "reference": frozenset[str](),
    "aten": frozenset({"jvp", "vmap"}),
    "cudnn": frozenset({"jvp", "vmap", "grad"}),  # it asks for the storage of its weights, which a transform hides
    "triton": frozenset({"jvp", "vmap", "grad"}),
}

# Why torch.jit.trace, through which the older exporter to ONNX goes, too, does not take an implementation.
_UNTRACED = {
    "reference": "torch.jit.trace would repeat its steps for this one size of grid",
    "triton": "torch.jit.trace cannot store its kernels",
}


def _refusal(name: str, x: Tensor, hidden: int, scans: Sequence[int], cell: str) -> str | None:
    """Why an implementation cannot take the arguments; None if it can."""
    running = derivatives.transforms() & _UNTRANSFORMED[name]
    if running:
        return f"torch.func's {' and '.join(sorted(running))} does not work on it; implementation='reference' takes it"
    if torch.jit.is_tracing() and name in _UNTRACED:
        return f"{_UNTRACED[name]}; 'aten' on a CPU and 'cudnn' on CUDA can be traced"
    return _REFUSALS[name](x, hidden, scans, cell)


def _no_refusal(x: Tensor, hidden: int, scans: Sequence[int], cell: str) -> str | None:
    return None


def _vendor_refusal(device: str, dtypes: tuple[torch.dtype, ...]) -> Callable[..., str | None]:
    def refusal(x: Tensor, hidden: int, scans: Sequence[int], cell: str) -> str | None:
        if x.device.type != device:
            return f"the input is on {x.device}, it needs {device}"
        if x.dtype not in dtypes:
            return f"it does not compute in {x.dtype}"
        if CELLS[cell].vendor is None:
            return f"PyTorch has no function for the cell {cell}"
        if not vendor.supports(scans):
            return f"scans {tuple(scans)} hold a backward scan without the forward one before it"
        return None

    return refusal


_REFUSALS: dict[str, Callable[..., str | None]] = {
    "reference": _no_refusal,
    "aten": _vendor_refusal("cpu", (torch.float64, torch.float32, torch.bfloat16, torch.float16)),
    "cudnn": _vendor_refusal("cuda", (torch.float64, torch.float32, torch.bfloat16, torch.float16)),
    "triton": fused.refusal,
}


def _check(x: Tensor, weights: Weights, scans: Sequence[int], cell: str, gates: str) -> None:
    if cell not in CELLS:
        raise InputError(f"unknown cell {cell!r}; choose one of {', '.join(CELLS)}")
    if gates not in GATES:
        raise InputError(f"gates={gates!r}; choose one of {', '.join(GATES)}")
    if x.ndim < 3:
        raise InputError(f"x has shape {tuple(x.shape)}; expected (batch, height, width, channels) or another grid")
    axes = x.ndim - 2
    if not scans or any(scan not in range(2 * axes) for scan in scans):
        raise InputError(
            f"scans={tuple(scans)} for x of shape {tuple(x.shape)}; give one or more of 0 to {2 * axes - 1}: 2*a is "
            "forward along axis a of the grid, 2*a + 1 backward"
        )
    if 0 in x.shape[1:-1]:
        raise InputError(f"x has shape {tuple(x.shape)}; a grid has at least one row and one column")
    slots, hidden = len(scans), weights.weight_hh.shape[-1]
    width, recurrent_width = CELLS[cell].gates * hidden, CELLS[cell].recurrent_gates * hidden
    shapes = ((slots, width, x.shape[-1]), (slots, recurrent_width, hidden), (slots, width), (slots, recurrent_width))
    if (weights.bias_ih is None) != (weights.bias_hh is None):
        raise InputError("give both biases or neither")
    for name, value, shape in zip(weights._fields, weights, shapes, strict=True):
        if value is not None and tuple(value.shape) != shape:
            raise InputError(f"{name} has shape {tuple(value.shape)}; expected {shape} for {slots} scans of {cell}")
