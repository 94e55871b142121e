"""The recurrent cells: how many gates each has, and one step of each in plain PyTorch.

Suffixes: S scans, G gates, D hidden units. Gate order is torch's: LSTM i, f, g, o; GRU r, z, n; tanh RNN one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# State is (h,) or (h, c); a step takes the input part and the recurrent part of the gates, each (..., G*D).
State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]


def lstm_step(gates: Tensor, recurrent: Tensor, state: State) -> State:
    """Eq. 1-3 of the paper."""
    i, f, g, o = (gates + recurrent).chunk(4, dim=-1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(gates: Tensor, recurrent: Tensor, state: State) -> State:
    """torch.nn.GRU's form: the reset gate scales the recurrent product of the candidate, its bias included."""
    r_x, z_x, n_x = gates.chunk(3, dim=-1)
    r_h, z_h, n_h = recurrent.chunk(3, dim=-1)
    z = torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (n + z * (state[0] - n),)


def rnn_step(gates: Tensor, recurrent: Tensor, state: State) -> State:
    """The Elman network with tanh."""
    return (torch.tanh(gates + recurrent),)


@dataclass(frozen=True)
class Cell:
    """A recurrent cell: its number of gates G, of state tensors, and its step."""

    gates: int
    states: int
    step: Step


CELLS = {"lstm": Cell(4, 2, lstm_step), "gru": Cell(3, 1, gru_step), "rnn": Cell(1, 1, rnn_step)}
