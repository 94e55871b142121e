"""How far the memory of each recurrence reaches: forget gates and half-lives.

An LSTM keeps f_t of its cell from one token to the next (eq. 2 of the paper), f_t = σ(W_f x_t + U_f h_{t−1} + b). What
a unit holds decays along a scan by the product of its forget gates, so its half-life is −ln 2 / mean(ln f), in tokens;
times the stride of the block it is in pixels. For a GRU the update gate z takes f's place; a tanh RNN has no such gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequencer2d.analysis.arrays import save_arrays
from sequencer2d.analysis.hidden_states import SCAN_NAMES, mixer_inputs, mixers
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.evaluation.pixels import Progress, normalized
from sequencer2d.evaluation.subject import Subject
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import CELLS
from sequencer2d.ops.scans import Scan

BINS = 50


@dataclass(frozen=True)
class Reach:
    """The memory of one scan of one block.

    Attributes:
        block: its name.
        scan: 0 to 3, see `SCAN_NAMES`.
        stride: pixels per token.
        histogram: (BINS,) share of forget gates in each of equal bins from 0 to 1, over tokens, units and images.
        half_life: (D,) tokens after which half of a unit's memory is left, per unit.
        tokens: tokens along the scan: half-lives beyond it cannot be told from no forgetting.
    """

    block: str
    scan: int
    stride: float
    histogram: np.ndarray
    half_life: np.ndarray
    tokens: int

    @property
    def direction(self) -> str:
        return SCAN_NAMES[self.scan]

    def quantiles(self, of: Sequence[float] = (0.1, 0.5, 0.9)) -> np.ndarray:
        """Quantiles of the units' half-lives in tokens."""
        return np.quantile(self.half_life, of)


@dataclass(frozen=True)
class MemoryReach:
    """The memory of every block and scan of a model, in the order of the blocks and their scans."""

    model: str
    scans: tuple[Reach, ...]
    images: int

    def save(self, path: str | Path) -> None:
        """Write one row per block and scan as `.npz`; half-lives are padded with nan to the widest block."""
        width = max(len(reach.half_life) for reach in self.scans)
        padded = [np.pad(r.half_life, (0, width - len(r.half_life)), constant_values=np.nan) for r in self.scans]
        save_arrays(path, model=self.model, images=self.images, blocks=[r.block for r in self.scans],
                    scans=[r.scan for r in self.scans], strides=[r.stride for r in self.scans],
                    tokens=[r.tokens for r in self.scans], histogram=np.stack([r.histogram for r in self.scans]),
                    half_life_tokens=np.stack(padded))  # fmt: skip


@dataclass
class _Sum:
    histogram: Tensor
    log_gate: Tensor
    count: int = 0
    tokens: int = 0
    stride: float = 0.0


def memory_reach(
    subject: Subject, pixels: np.ndarray, *, batch_size: int = 8, progress: Progress | None = None
) -> MemoryReach:
    """Forget gates and half-lives of every block, axis and direction, over images.

    Args:
        subject: one of our models with LSTM or GRU cells.
        pixels: uint8 (N, H, W, 3).
        batch_size: images in one forward pass.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: a model without gates that forget.
        InputError: no images.
    """
    found = mixers(subject.model)
    cell = found[0][1].cell
    if CELLS[cell].forget_gate is None:
        raise ConfigError(
            f"{subject.name} runs tanh RNNs, which have no forget gate: memory reach needs LSTM or GRU cells"
        )
    if len(pixels) == 0:
        raise InputError("no images to measure the memory on")
    sums: dict[tuple[str, int], _Sum] = {}
    for start in range(0, len(pixels), batch_size):
        part = pixels[start : start + batch_size]
        inputs = mixer_inputs(subject.model, normalized(part, subject), found)
        for name, mixer in found:
            _add(sums, name, mixer, inputs[name], pixels.shape[1])
        if progress:
            progress(len(part))
    scans = tuple(_reach(name, scan, total) for (name, scan), total in sums.items())
    return MemoryReach(subject.name, scans, len(pixels))


@torch.no_grad()
def forget_gates(mixer: RNN2D, tokens: Tensor) -> Tensor:
    """The forget gates (LSTM) or update gates (GRU) of every scan: (B, h, w, C) to (B, h, w, S, D), between 0 and 1.

    Worked out from the mixer's own hidden states, so any implementation of the recurrence can have made them.
    """
    batch, height, width, _ = tokens.shape
    hidden = mixer.scan(tokens).unflatten(-1, (len(mixer.scans), mixer.hidden_dim))
    if mixer.axes == "flatten":
        tokens = tokens.reshape(batch, 1, height * width, -1)
        hidden = hidden.reshape(batch, 1, height * width, len(mixer.scans), mixer.hidden_dim)
    gate = CELLS[mixer.cell].forget_gate
    assert gate is not None
    rows = slice(gate * mixer.hidden_dim, (gate + 1) * mixer.hidden_dim)
    w_ih, w_hh, b_ih, b_hh = (mixer.stack(kind)[:, rows] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    gates = []
    for slot, scan in enumerate(mixer.scans):
        before = _previous(hidden[..., slot, :], Scan.numbered(scan))
        gates.append(F.linear(tokens, w_ih[slot], b_ih[slot]) + F.linear(before, w_hh[slot], b_hh[slot]))
    return torch.sigmoid(torch.stack(gates, dim=-2)).reshape(batch, height, width, len(mixer.scans), -1)


def _previous(hidden: Tensor, scan: Scan) -> Tensor:
    """The state before each token, (B, h, w, D): zero where the scan starts."""
    shifted = torch.zeros_like(hidden)
    count = hidden.shape[scan.dim] - 1
    to, of = (0, 1) if scan.reverse else (1, 0)
    shifted.narrow(scan.dim, to, count).copy_(hidden.narrow(scan.dim, of, count))
    return shifted


def _add(sums: dict[tuple[str, int], _Sum], name: str, mixer: RNN2D, tokens: Tensor, pixels: int) -> None:
    gates = forget_gates(mixer, tokens).float()
    height, width = tokens.shape[1:3]
    for slot, scan in enumerate(mixer.scans):
        part = gates[..., slot, :].flatten(0, 2)
        total = sums.setdefault((name, scan), _Sum(torch.zeros(BINS), torch.zeros(part.shape[-1], dtype=torch.float64)))
        total.histogram += torch.histc(part.cpu(), BINS, 0.0, 1.0)
        total.log_gate += part.double().clamp_min(1e-12).log().sum(dim=0).cpu()
        total.count += len(part)
        sizes = (1, height * width) if mixer.axes == "flatten" else (height, width)
        total.tokens = Scan.numbered(scan).walk(sizes).steps
        total.stride = pixels / height


def _reach(name: str, scan: int, total: _Sum) -> Reach:
    rate = (total.log_gate / total.count).numpy()
    with np.errstate(divide="ignore"):
        half_life = -np.log(2) / rate
    histogram = (total.histogram / total.histogram.sum()).numpy()
    return Reach(name, scan, total.stride, histogram, half_life, total.tokens)
