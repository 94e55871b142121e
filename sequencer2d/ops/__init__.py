"""Operations: one public function for the recurrences of a token mixer, and its implementations."""

from sequencer2d.ops.cells import CELLS
from sequencer2d.ops.rnn2d import IMPLEMENTATIONS, choose_implementation, rnn2d

__all__ = ["CELLS", "IMPLEMENTATIONS", "choose_implementation", "rnn2d"]
