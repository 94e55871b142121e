"""Modules: the recurrent token mixer, its block, the stem, how they are initialized, and drop-in recurrent layers."""

from sequencer2d.nn.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
