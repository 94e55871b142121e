"""The weights of a recurrence, as all implementations take them."""

from typing import NamedTuple

from torch import Tensor


class Weights(NamedTuple):
    """The weights of all scans, stacked: S scans, G gates, D hidden units, C input channels.

    Attributes:
        weight_ih: (S, G*D, C).
        weight_hh: (S, G*D, D), or (S, 0, D) for a cell that does not recur through h.
        bias_ih: (S, G*D), or None.
        bias_hh: as weight_hh without its last dimension; None if bias_ih is None.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def of_slots(self, slots: list[int]) -> list[Tensor]:
        """The weights of some slots in the order of torch's functions, each slot's after the other's."""
        return [stack[slot] for slot in slots for stack in self if stack is not None]
