"""Token mixers whose weights are constants, one kind for every way out.

A trained mixer stacks the parameters of its recurrent layers at each call; an artifact would carry those copies as
nodes, and run them for every image. Here they are stacked, and where the runtime orders gates differently reordered,
once. Suffixes: B batch, H rows, W columns, C channels, T steps, N sequences, S scans, G gates, D hidden units.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError
from sequencer2d.export.onnx_layer import onnx_node
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import CELLS
from sequencer2d.ops.scans import by_axis, is_reverse


class Stacked(nn.Module):
    """Holds the weights of some slots of a mixer: (S, G·D, C), (S, G·D, D) and the biases (S, G·D)."""

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    def __init__(self, mixer: RNN2D, slots: Sequence[int]) -> None:
        super().__init__()
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.register_buffer(kind, mixer.stack(kind).detach()[list(slots)].contiguous())


class Operator(Stacked):
    """All scans as one node, `sequencer2d::rnn2d`: any device; the program needs this package to run."""

    def __init__(self, mixer: RNN2D) -> None:
        super().__init__(mixer, range(len(mixer.scans)))
        self.scans, self.cell = list(mixer.scans), mixer.cell

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.sequencer2d.rnn2d(
            x, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.scans, self.cell
        )


class Axes(nn.Module):
    """One recurrence an axis over time-major sequences; `kind` makes it of the mixer and the axis's slots."""

    def __init__(self, mixer: RNN2D, kind: Callable[[RNN2D, Sequence[int]], nn.Module]) -> None:
        super().__init__()
        slots_of = by_axis(mixer.scans)
        self.axes = list(slots_of)
        self.recurrences = nn.ModuleList(kind(mixer, slots) for slots in slots_of.values())

    def forward(self, x: Tensor) -> Tensor:
        outputs = [
            from_sequences(recurrence(to_sequences(x, axis)), x, axis)
            for axis, recurrence in zip(self.axes, self.recurrences, strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class OneDNN(Stacked):
    """Recurrences over one axis by oneDNN's primitive, (T, N, C) to (T, N, S·D): a function of libtorch, CPU only."""

    def __init__(self, mixer: RNN2D, slots: Sequence[int]) -> None:
        super().__init__(mixer, slots)
        self.backward_scans = [is_reverse(mixer.scans[slot]) for slot in slots]
        self.mode = CELLS[mixer.cell].onednn_mode

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.weight_hh.shape[-1]
        # The primitive reads memory in order, whatever the strides say.
        x = x.contiguous()
        zeros = x.new_zeros(x.shape[1], hidden)
        outputs = [
            torch.ops.aten.mkldnn_rnn_layer.default(
                x,
                self.weight_ih[slot],
                self.weight_hh[slot],
                self.bias_ih[slot],
                self.bias_hh[slot],
                zeros,
                zeros,
                backward,
                [],
                self.mode,
                hidden,
                1,
                True,
                False,
                False,
                False,
            )[0]
            for slot, backward in enumerate(self.backward_scans)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class OnnxLayer(Stacked):
    """One axis as one node of ONNX's LSTM, GRU or RNN, (T, N, C) to (T, N, S·D); only traced, never run by torch."""

    bias: Tensor

    def __init__(self, mixer: RNN2D, slots: Sequence[int]) -> None:
        super().__init__(mixer, slots)
        self.cell, self.hidden = mixer.cell, mixer.hidden_dim
        backward = [is_reverse(mixer.scans[slot]) for slot in slots]
        self.direction = "bidirectional" if len(slots) == 2 else "reverse" if backward[0] else "forward"
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            setattr(self, name, _reorder(getattr(self, name), onnx_node(mixer.cell).gate_order))
        self.register_buffer("bias", torch.cat([self.bias_ih, self.bias_hh], dim=1))
        del self.bias_ih, self.bias_hh

    def forward(self, x: Tensor) -> Tensor:
        out = torch.ops.sequencer2d_onnx.layer(
            x, self.weight_ih, self.weight_hh, self.bias, self.hidden, self.direction, self.cell
        )
        return out.transpose(1, 2).flatten(2)


class Mixer(nn.Module):
    """An `RNN2D` for inference whose recurrence is one of the classes above."""

    def __init__(self, mixer: RNN2D, recurrence: nn.Module) -> None:
        super().__init__()
        self.flatten, self.fusion, self.recurrence, self.fc = (
            mixer.axes == "flatten",
            mixer.fusion,
            recurrence,
            mixer.fc,
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        grid = x.reshape(batch, 1, height * width, channels) if self.flatten else x
        hidden = self.recurrence(grid).reshape(batch, height, width, -1)
        if self.fusion == "add":
            vertical, horizontal = hidden.chunk(2, dim=-1)
            hidden = vertical + horizontal
        return self.fc(hidden)


def to_sequences(x_BHWC: Tensor, axis: int) -> Tensor:
    """Columns (axis 0) or rows (axis 1) of a grid (B, H, W, C) as time-major sequences (T, N, C)."""
    batch, height, width, channels = x_BHWC.shape
    if axis == 0:
        return x_BHWC.transpose(0, 1).reshape(height, batch * width, channels)
    return x_BHWC.permute(2, 0, 1, 3).reshape(width, batch * height, channels)


def from_sequences(y_TNK: Tensor, x_BHWC: Tensor, axis: int) -> Tensor:
    """Sequences (T, N, K) of the grid x back as (B, H, W, K)."""
    batch, height, width, _ = x_BHWC.shape
    if axis == 0:
        return y_TNK.reshape(height, batch, width, -1).transpose(0, 1)
    return y_TNK.reshape(width, batch, height, -1).permute(1, 2, 0, 3)


def with_constant_weights(model: nn.Module, recurrence: Callable[[RNN2D], nn.Module]) -> nn.Module:
    """A copy of `model` in evaluation mode, every `RNN2D` in it replaced by a `Mixer` around `recurrence(mixer)`.

    Raises:
        ConfigError: the model has no such mixer.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    names = [name for name, module in model.named_modules() if isinstance(module, RNN2D)]
    if not names:
        raise ConfigError(f"{type(model).__name__} has no recurrent mixer of this package: nothing to export")
    for name in names:
        mixer = model.get_submodule(name)
        assert isinstance(mixer, RNN2D)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Mixer(mixer, recurrence(mixer)).eval())
    return model


def _reorder(stacked: Tensor, order: Sequence[int]) -> Tensor:
    """(S, G·D, …) with its gates in another order."""
    gates = stacked.chunk(len(order), dim=1)
    return torch.cat([gates[gate] for gate in order], dim=1)
