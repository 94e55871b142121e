"""Recurrences as a loop of the graph (torch's while_loop), for cells that libtorch has no single function for.

One node an axis whatever the number of steps, which an unrolled recurrence would turn into thousands.
Suffixes: T steps, N sequences, S directions, G gates, D hidden units, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from sequencer2d.export.mixers import Stacked
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.scans import is_reverse


class Loop(Stacked):
    """Both directions of one axis, step by step: (T, N, C) to (T, N, S·D)."""

    def __init__(self, mixer: RNN2D, slots: Sequence[int]) -> None:
        super().__init__(mixer, slots)
        self.cell, self.hidden = mixer.cell, mixer.hidden_dim
        self.backward_scans = [is_reverse(mixer.scans[slot]) for slot in slots]

    def forward(self, x: Tensor) -> Tensor:
        steps, sequences, channels = x.shape
        slots, step = len(self.backward_scans), CELLS[self.cell].step
        product = x.reshape(steps * sequences, channels) @ self.weight_ih.flatten(0, 1).T + self.bias_ih.flatten()
        gates_TNSG = product.reshape(steps, sequences, slots, self.weight_ih.shape[1])
        gates_TSNG = self._in_order(gates_TNSG.transpose(1, 2))
        weight_hh, bias_hh = self.weight_hh.transpose(1, 2), self.bias_hh[:, None]

        def unfinished(t: Tensor, out: Tensor, *state: Tensor) -> Tensor:
            return t < steps

        def body(t: Tensor, out: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
            index = t.reshape(1)
            gates = torch.index_select(gates_TSNG, 0, index)[0]
            state = step(gates, torch.baddbmm(bias_hh, state[0], weight_hh), state)
            return t + 1, torch.index_copy(out, 0, index, state[0][None]), *state

        start = [x.new_zeros(slots, sequences, self.hidden) for _ in range(CELLS[self.cell].states)]
        out = x.new_zeros(steps, slots, sequences, self.hidden)
        _, out, *_ = while_loop(unfinished, body, (torch.zeros((), dtype=torch.int64), out, *start))
        return self._in_order(out).transpose(1, 2).flatten(2)

    def _in_order(self, values_TSNK: Tensor) -> Tensor:
        """Turn the steps of the backward scans round: into the order they run in, or back."""
        turned = [
            values_TSNK[:, slot].flip(0) if backward else values_TSNK[:, slot]
            for slot, backward in enumerate(self.backward_scans)
        ]
        return torch.stack(turned, dim=1)
