"""Random recurrences, their float64 solution, and the error that PyTorch's own kernels make on them."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from sequencer2d.ops import CELLS, rnn2d

NAMES = ("h", "x", "weight_ih", "weight_hh", "bias_ih", "bias_hh")


@dataclass(frozen=True)
class Problem:
    """Arguments of `rnn2d` in one dtype, and the gradient of its output."""

    arguments: tuple[Tensor, ...]
    grad: Tensor
    scans: tuple[int, ...]
    cell: str

    def to(self, dtype: torch.dtype) -> "Problem":
        return Problem(tuple(a.to(dtype) for a in self.arguments), self.grad.to(dtype), self.scans, self.cell)

    def solve(self, implementation: str, gates: str = "stored") -> dict[str, Tensor]:
        """Output and all gradients by one implementation."""
        leaves = [a.detach().clone().requires_grad_() for a in self.arguments]
        options = {"scans": self.scans, "cell": self.cell, "implementation": implementation, "gates": gates}
        out = rnn2d(*leaves, **options)
        return dict(zip(NAMES, (out.detach(), *torch.autograd.grad(out, leaves, self.grad)), strict=True))


def make_problem(
    device: torch.device,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    height: int = 3,
    width: int = 4,
    channels: int = 16,
    hidden: int = 16,
    scans: tuple[int, ...] = (0, 1, 2, 3),
    cell: str = "lstm",
    scale: float = 1.0,
    seed: int = 0,
) -> Problem:
    """Inputs of unit variance times `scale`, weights as a recurrent layer starts."""
    generator = torch.Generator().manual_seed(seed)
    slots, rows, recurrent_rows = len(scans), CELLS[cell].gates * hidden, CELLS[cell].recurrent_gates * hidden
    shapes = [
        (batch, height, width, channels),
        (slots, rows, channels),
        (slots, recurrent_rows, hidden),
        (slots, rows),
        (slots, recurrent_rows),
    ]
    values = [torch.randn(*shape, generator=generator) for shape in shapes]
    values[0] *= scale
    values[1] /= channels**0.5
    values[2] /= hidden**0.5
    grad = torch.randn(batch, height, width, slots * hidden, generator=generator)
    return Problem(tuple(v.to(device, dtype) for v in values), grad.to(device, dtype), scans, cell)


def relative_errors(values: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over norm of the expected, for the output and each gradient."""
    return {
        name: ((values[name].double() - expected[name]).norm() / expected[name].norm().clamp_min(1e-30)).item()
        for name in NAMES
    }


def budgets(problem: Problem, expected: dict[str, Tensor]) -> dict[str, float]:
    """What an implementation may err: twice what PyTorch's own kernels do in the same dtype, at least one rounding."""
    device, dtype = problem.grad.device, problem.grad.dtype
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = relative_errors(problem.solve("cudnn" if device.type == "cuda" else "reference"), expected)
    return {name: 2 * value + torch.finfo(dtype).eps for name, value in plain.items()}
