"""Drop-in LSTM, GRU and RNN: the arguments, results, parameters and state dicts are those of `torch.nn`'s.

On CUDA they run the fused kernels where those were measured to be faster, and torch's own functions otherwise. They
derive from `torch.nn.RNNBase`, not from `torch.nn.LSTM`, because torch.compile refuses the latter.

Suffixes: N sequences, T steps, C input channels, L layers, S directions, D hidden units.
"""

from typing import Any, ClassVar, NoReturn

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from sequencer2d.errors import ConfigError, InputError
from sequencer2d.ops import IMPLEMENTATIONS, choose_implementation, derivatives
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.layer import run_layer, takes
from sequencer2d.ops.measured import are_kernels_faster
from sequencer2d.ops.precision import runs_under_autocast
from sequencer2d.ops.scans import SEQUENCE_SCANS
from sequencer2d.ops.sequences import rnn_sequence
from sequencer2d.ops.vendor_sequences import rnn_layer_compiled
from sequencer2d.ops.weights import Weights

# Our name of the cell for each of torch's modes. Other modes run torch's functions.
_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn"}


class _Recurrent(nn.RNNBase):
    """What the drop-in modules share. `like` is the class of torch that each stands for."""

    like: ClassVar[Any]

    def __init__(self, mode: str, *sizes: Any, implementation: str = "auto", **options: Any) -> None:
        if options.get("proj_size") and mode != "LSTM":
            raise ValueError(f"proj_size is an argument of LSTM alone, not of {type(self).__name__}")
        super().__init__(mode, *sizes, **options)
        if self.proj_size:
            raise ConfigError(
                f"proj_size={self.proj_size}: projections are not implemented; keep torch.nn.LSTM for this layer"
            )
        self.set_implementation(implementation)

    def set_implementation(self, implementation: str) -> None:
        """Choose the implementation, see `sequencer2d.ops.rnn2d`. Raises ConfigError for an unknown name."""
        if implementation not in IMPLEMENTATIONS:
            raise ConfigError(f"unknown implementation {implementation!r}; choose one of {', '.join(IMPLEMENTATIONS)}")
        self.implementation = implementation

    def flatten_parameters(self) -> None:
        """As torch's, for the calls that run torch's functions; the fused kernels do not need it."""
        if not torch.compiler.is_compiling():
            super().flatten_parameters()

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's: a tensor (N, T, C), (T, N, C) or (T, C), or a packed sequence, and the states before it."""
        if isinstance(input, torch.fx.Proxy):  # torch.fx keeps a layer as one call, as it does with torch's
            tracer: Any = input.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input, hx), {})
        if self.mode in _CELLS:
            chosen = self.choose_implementation(input)
            if chosen in ("triton", "reference"):
                return self._run(input, hx, chosen)
            if torch.compiler.is_compiling() and isinstance(input, Tensor):
                return self._run(input, hx, "vendor")
        return self.like.forward(self, input, hx)

    def choose_implementation(self, input: Any) -> str:
        """The implementation that an input (a tensor or a packed sequence) runs: the named one, or "auto"'s choice."""
        if isinstance(input, PackedSequence):
            steps, sequences = len(input.batch_sizes), int(input.batch_sizes[0])
            x = input.data[:1].expand(sequences, steps, -1)  # of the right shape, without memory of its own
        else:
            x = input[None] if input.dim() == 2 else input
            x = x if self.batch_first or input.dim() != 3 else x.transpose(0, 1)
        cell = _CELLS[self.mode]
        faster = None
        if self.implementation == "auto" and not derivatives.transforms():
            # For another dtype torch's function runs as well, and raises its own error.
            fits = x.dtype == self.weight_hh_l0.dtype or runs_under_autocast(x)
            faster = x.is_cuda and fits and are_kernels_faster(x, x.shape[0], self.hidden_size, cell)
            if not fits or (x.is_cuda and not faster):
                return "cudnn" if x.is_cuda else "aten"
        return choose_implementation(
            x,
            self.hidden_size,
            scans=SEQUENCE_SCANS[self._directions],
            cell=cell,
            implementation=self.implementation,
            kernels_are_faster=faster,
        )

    def _run(self, input: Any, hx: Any, how: str) -> Any:
        """Forward by "triton", "reference", or "vendor", torch's function as one node of a traced graph."""
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, how)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched, batch_dim = input.dim() == 3, 0 if self.batch_first else 1
        x = input if batched else input.unsqueeze(batch_dim)
        state = self._state(hx, 3 if batched else 2)
        if state is not None and not batched:
            state = tuple(part.unsqueeze(1) for part in state)
        self._check(x, state, None)
        out, last = self._layers(x, state, None, how, self.batch_first)
        if not batched:
            out, last = out.squeeze(batch_dim), tuple(part.squeeze(1) for part in last)
        return out, last if self._states > 1 else last[0]

    def _run_packed(self, input: PackedSequence, hx: Any, how: str) -> Any:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        state = self._state(hx, 3)
        if state is not None and sorted_indices is not None:
            state = tuple(part.index_select(1, sorted_indices) for part in state)
        self._check(data, state, batch_sizes)
        # In the order of `data`, longest first.
        x, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes), batch_first=True)
        same = int(lengths.min()) == len(batch_sizes)
        out, last = self._layers(x, state, None if same else lengths.to(x.device), how, True)
        out = pack_padded_sequence(out, lengths, batch_first=True).data
        if unsorted_indices is not None:
            last = tuple(part.index_select(1, unsorted_indices) for part in last)
        packed = PackedSequence(out, batch_sizes, sorted_indices, unsorted_indices)
        return packed, last if self._states > 1 else last[0]

    @property
    def _states(self) -> int:
        """The number of state tensors: 1 for h, 2 for h and c."""
        return CELLS[_CELLS[self.mode]].states

    def _state(self, hx: Any, dims: int) -> tuple[Tensor, ...] | None:
        """The given states as a tuple, h or h and c."""
        if hx is None:
            return None
        state = (hx,) if self._states == 1 else tuple(hx) if isinstance(hx, (tuple, list)) else ()
        if len(state) != self._states or not all(isinstance(part, Tensor) for part in state):
            expected = "one tensor h" if self._states == 1 else "a pair of tensors (h, c)"
            raise TypeError(f"{type(self).__name__} begins with {expected}, got {_described(hx)}")
        if any(part.dim() != dims for part in state):
            kind = "batched 3-D" if dims == 3 else "unbatched 2-D"
            given = ", ".join(f"{part.dim()}-D" for part in state)
            raise RuntimeError(f"For {kind} input, the states should also be {dims}-D but got ({given}) tensors")
        return state

    def _check(self, x: Tensor, state: tuple[Tensor, ...] | None, batch_sizes: Tensor | None) -> None:
        """Raise torch's errors for sizes that do not fit."""
        self.check_input(x, batch_sizes)
        if batch_sizes is None and x.shape[1 if self.batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        expected = self.get_expected_hidden_size(x, batch_sizes)
        for name, part in zip(("hidden[0]", "hidden[1]"), state or (), strict=False):
            self.check_hidden_size(part, expected, f"Expected {name} size {{}}, got {{}}")
            if part.device != x.device:
                raise RuntimeError(f"Expected {name} on {x.device}, the input's device, got {part.device}")
            if part.dtype != x.dtype and not runs_under_autocast(x):
                raise RuntimeError(f"Expected {name} in {x.dtype}, the input's dtype, got {part.dtype}")

    def _layers(
        self, x: Tensor, state: tuple[Tensor, ...] | None, lengths: Tensor | None, how: str, batch_first: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers: the last one's hidden states, and the states after the last step, (L*S, N, D) each."""
        ends = []
        for layer in range(self.num_layers):
            before = None
            if state is not None:
                slots = slice(layer * self._directions, (layer + 1) * self._directions)
                before = tuple(part[slots] for part in state)
            x, last = self._layer(x, layer, before, lengths, how, batch_first)
            ends.append(last)
            if layer < self.num_layers - 1 and self.dropout > 0:
                x = F.dropout(x, self.dropout, self.training)
        return x, ends[0] if len(ends) == 1 else tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    def _layer(
        self,
        x: Tensor,
        layer: int,
        state: tuple[Tensor, ...] | None,
        lengths: Tensor | None,
        how: str,
        batch_first: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        cell = _CELLS[self.mode]
        if how == "triton" and state is None and lengths is None:
            parameters = self._parameters_of(layer)
            if takes(x, parameters):
                out, last = run_layer(x if batch_first else x.unsqueeze(0), parameters, cell, self._directions)
                return out if batch_first else out.squeeze(0), last
        weights = self._weights(layer)
        if how == "vendor":
            if state is None:
                batch = x.shape[0 if batch_first else 1]
                # One tensor each: a compiler refuses the same one twice.
                zeros = (x.new_zeros(self._directions, batch, self.hidden_size) for _ in range(self._states))
                state = tuple(zeros)
            return rnn_layer_compiled(x, weights, state, cell=cell, batch_first=batch_first)
        # A time-major sequence is the first axis of a grid of one image.
        grid = x if batch_first else x.unsqueeze(0)
        out, last = rnn_sequence(grid, weights, state, lengths, cell=cell, by_reference=how == "reference")
        return out if batch_first else out.squeeze(0), last

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _weights(self, layer: int) -> Weights:
        """The weights of a layer, stacked by direction."""
        suffixes = ("", "_reverse")[: self._directions]
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        stacks = [
            None
            if kind.startswith("bias") and not self.bias
            else torch.stack([getattr(self, f"{kind}_l{layer}{suffix}") for suffix in suffixes])
            for kind in kinds
        ]
        return Weights(*stacks)  # type: ignore[arg-type]

    def _parameters_of(self, layer: int) -> list[Any]:
        """The parameters of a layer, kind by kind and then by direction, as `run_layer` takes them."""
        suffixes = ("", "_reverse")[: self._directions]
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        return [self._parameters.get(f"{kind}_l{layer}{suffix}") for kind in kinds for suffix in suffixes]

    def __prepare_scriptable__(self) -> NoReturn:
        """What torch.jit.script calls first, on every module in a model."""
        raise InputError(
            "torch.jit.script cannot compile this layer, whose implementation is chosen at each call: "
            "use torch.export or torch.jit.trace, or script the model before fuse()"
        )


def _described(given: Any) -> str:
    """What a user gave for states, in a few words."""
    kind = type(given).__name__
    return (
        f"a {kind} of {', '.join(type(part).__name__ for part in given)}" if isinstance(given, (tuple, list)) else kind
    )


class LSTM(_Recurrent):
    """`torch.nn.LSTM` with the fused kernels: the same arguments but `proj_size`, and `implementation` beside them.

    Raises:
        ConfigError: projections, or an unknown implementation.
    """

    like = nn.LSTM
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]
    get_expected_cell_size = nn.LSTM.get_expected_cell_size

    def __init__(self, *sizes: Any, implementation: str = "auto", **options: Any) -> None:
        super().__init__("LSTM", *sizes, implementation=implementation, **options)


class GRU(_Recurrent):
    """`torch.nn.GRU` with the fused kernels: the same arguments, and `implementation` beside them."""

    like = nn.GRU

    def __init__(self, *sizes: Any, implementation: str = "auto", **options: Any) -> None:
        super().__init__("GRU", *sizes, implementation=implementation, **options)


class RNN(_Recurrent):
    """`torch.nn.RNN` with the fused kernels for nonlinearity="tanh"; "relu" runs torch's functions."""

    like = nn.RNN

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *more: Any,
        implementation: str = "auto",
        **options: Any,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        self.nonlinearity = nonlinearity
        mode = f"RNN_{nonlinearity.upper()}"
        super().__init__(mode, input_size, hidden_size, num_layers, *more, implementation=implementation, **options)
