"""The recurrent token mixer: BiLSTM2D of the paper (section 3.2) and its variants.

Suffixes: B batch, H rows, W columns, C channels, S scans, G gates, D hidden units.
"""

import math
from typing import NoReturn

import torch
import torch.fx
from torch import Tensor, nn

from sequencer2d.choices import AXES, FUSIONS
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.ops import CELLS, IMPLEMENTATIONS, rnn2d
from sequencer2d.ops.scans import scans_of

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

# It chooses by device, dtype and size, which cannot be traced by symbols: torch.fx keeps it as a call.
torch.fx.wrap("rnn2d")


class RecurrentWeights(nn.Module):
    """The parameters of a one-layer recurrent network, named and shaped as those of `torch.nn.LSTM`, `GRU` and `RNN`.

    It holds them only: running them on a grid is the mixer's work, which calls this module for them, so that weights
    that a hook or a wrapper computes (weight norms, pruning, LoRA) are up to date. (`torch.nn.LSTM` itself can be
    neither compiled nor exported with a dynamic size, and neither can a subclass of it.)
    """

    def __init__(self, input_size: int, hidden_size: int, cell: str = "lstm", bidirectional: bool = True) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.cell, self.bidirectional = input_size, hidden_size, cell, bidirectional
        width, recurrent_width = CELLS[cell].gates * hidden_size, CELLS[cell].recurrent_gates * hidden_size
        for suffix in self.suffixes:
            self.register_parameter(f"weight_ih_l0{suffix}", nn.Parameter(torch.empty(width, input_size)))
            self.register_parameter(f"weight_hh_l0{suffix}", nn.Parameter(torch.empty(recurrent_width, hidden_size)))
            self.register_parameter(f"bias_ih_l0{suffix}", nn.Parameter(torch.empty(width)))
            self.register_parameter(f"bias_hh_l0{suffix}", nn.Parameter(torch.empty(recurrent_width)))
        self.reset_parameters()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """What ends the names of each direction's parameters."""
        return ("", "_reverse") if self.bidirectional else ("",)

    def reset_parameters(self) -> None:
        """Uniform in ±1/√D, as torch's recurrent layers and the authors' models start."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, tokens: Tensor | None = None) -> dict[str, list[Tensor]]:
        """The weights by kind ("weight_ih", …), one a direction; what they will be applied to is not looked at."""
        return {kind: [getattr(self, f"{kind}_l0{suffix}") for suffix in self.suffixes] for kind in KINDS}

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, cell={self.cell}, bidirectional={self.bidirectional}"


class RNN2D(nn.Module):
    """Mixes the tokens of a grid by recurrences along its axes: (B, H, W, C) to (B, H, W, C).

    Args:
        dim: channels C of input and output.
        hidden_dim: hidden units D of each scan; the paper's is C/4.
        cell: "lstm", "gru" or "rnn" (table 2e).
        axes: "both" (BiLSTM2D), "vertical" or "horizontal" (table 2a), or "flatten", one sequence over all tokens in
            raster order (VSequencer, table 2c).
        bidirectional: scan each axis both ways (table 2b).
        fusion: "concat", a linear layer over the concatenated scans (eq. 7); "add", over the sum of the axes;
            "none", the concatenation is the output (table 2a), which then has scans·D channels.
        implementation: of the recurrence, see `sequencer2d.ops.rnn2d`.
        gates: "stored" or "recomputed", see `sequencer2d.ops.rnn2d`.

    Raises:
        ConfigError: an unknown cell, axes, fusion or implementation, or "add" with a single axis.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        cell: str = "lstm",
        axes: str = "both",
        bidirectional: bool = True,
        fusion: str = "concat",
        implementation: str = "auto",
        gates: str = "stored",
    ) -> None:
        super().__init__()
        _check_options(cell, axes, fusion)
        self.dim, self.hidden_dim, self.cell, self.axes, self.fusion = dim, hidden_dim, cell, axes, fusion
        self.bidirectional, self.gates = bidirectional, gates
        for name in self.rnn_names:
            self.add_module(name, RecurrentWeights(dim, hidden_dim, cell, bidirectional))
        width = len(self.scans) * hidden_dim // (2 if fusion == "add" else 1)
        self.fc = nn.Linear(width, dim) if fusion != "none" else nn.Identity()
        self.output_dim = dim if fusion != "none" else width
        self.set_implementation(implementation)

    @property
    def rnn_names(self) -> tuple[str, ...]:
        """Names of the recurrent layers, vertical first: rnn_v and rnn_h, or rnn for a flattened sequence."""
        return layer_names(self.axes)

    @property
    def scans(self) -> tuple[int, ...]:
        """Scans in the order of their parameters and the output's channels, as `sequencer2d.ops.rnn2d` numbers them."""
        return scans_along(self.axes, self.bidirectional)

    def set_implementation(self, implementation: str) -> None:
        """Choose the recurrence's implementation. Raises ConfigError for an unknown name."""
        if implementation not in IMPLEMENTATIONS:
            raise ConfigError(f"unknown implementation {implementation!r}; choose one of {', '.join(IMPLEMENTATIONS)}")
        self.implementation = implementation

    def stack(self, kind: str) -> Tensor:
        """Parameters of one kind ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for all scans, stacked: (S, …)."""
        return self.weights()[kind]

    def weights(self, x: Tensor | None = None) -> dict[str, Tensor]:
        """The parameters of all kinds, stacked; the recurrent layers are called with `x`, which they do not look at."""
        layers = [getattr(self, name)(x) for name in self.rnn_names]
        return {kind: torch.stack([weight for layer in layers for weight in layer[kind]]) for kind in KINDS}

    def scan(self, x: Tensor) -> Tensor:
        """The hidden states of all scans: (B, H, W, C) to (B, H, W, S·D)."""
        batch, height, width, _ = x.shape
        grid = x.reshape(batch, 1, height * width, self.dim) if self.axes == "flatten" else x
        hidden = rnn2d(
            grid,
            **self.weights(x),
            scans=self.scans,
            cell=self.cell,
            implementation=self.implementation,
            gates=self.gates,
        )
        return hidden.reshape(batch, height, width, len(self.scans) * self.hidden_dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.scan(x)
        if self.fusion == "add":
            vertical, horizontal = hidden.chunk(2, dim=-1)
            hidden = vertical + horizontal
        return self.fc(hidden)

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first, on every module in a model."""
        raise InputError(
            "torch.jit.script cannot compile the recurrence, whose implementation is chosen at each call: "
            "use torch.export or torch.jit.trace"
        )

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, {self.hidden_dim}, cell={self.cell}, axes={self.axes}, "
            f"bidirectional={self.bidirectional}, fusion={self.fusion}, implementation={self.implementation}"
        )


def layer_names(axes: str) -> tuple[str, ...]:
    """See `RNN2D.rnn_names`."""
    return tuple(f"rnn_{axis}" if axis else "rnn" for axis in AXES[axes])


def scans_along(axes: str, bidirectional: bool) -> tuple[int, ...]:
    """See `RNN2D.scans`."""
    # A flattened sequence is the second axis of a grid of one row.
    return scans_of([0 if axis == "v" else 1 for axis in AXES[axes]], bidirectional)


def _check_options(cell: str, axes: str, fusion: str) -> None:
    for what, value, known in (("cell", cell, CELLS), ("axes", axes, AXES), ("fusion", fusion, FUSIONS)):
        if value not in known:
            raise ConfigError(f"unknown {what} {value!r}; choose one of {', '.join(known)}")
    if fusion == "add" and axes != "both":
        raise ConfigError(f"fusion 'add' sums the two axes; with axes={axes!r} there is one: use 'concat' or 'none'")
