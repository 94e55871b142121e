"""Losses on their way from the device to the log, and the numbers of a run that a checkpoint keeps."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sequencer2d.errors import NumericalError


class LossWindow:
    """The losses since the last log line, and their mean over the epoch.

    Losses stay on the device until `drain`, so that no step waits for them; each is then averaged over the processes
    and checked. Sums are taken step by step, so that the means do not depend on when the window was drained.
    """

    def __init__(self, mean: Callable[[Tensor], Tensor]) -> None:
        self._mean = mean
        self._waiting: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._losses: list[float] = []
        self._last_norm: float | None = None
        self._epoch_sum, self._epoch_count = 0.0, 0

    def add(self, loss: Tensor, norm: Tensor | None) -> None:
        """One step's loss and gradient norm, 0-d tensors on the device."""
        self._waiting.append(loss)
        if norm is not None:
            self._norms = [norm]

    def drain(self, step: int) -> None:
        """Read what waits; `step` is the number of steps done. Every process must call at the same step.

        Raises `NumericalError` naming the first step whose loss is not finite.
        """
        if not self._waiting:
            return
        values = self._mean(torch.stack(self._waiting)).tolist()
        first = step - len(values) + 1
        self._waiting.clear()
        for number, value in enumerate(values, start=first):
            if not math.isfinite(value):
                raise NumericalError(f"the loss of step {number} is {value}")
            self._losses.append(value)
            self._epoch_sum += value
            self._epoch_count += 1
        norm = self._norms[0].item() if self._norms else None
        # A step whose gradients overflow fp16 has no norm: the scaler leaves the step out.
        self._last_norm = norm if norm is not None and math.isfinite(norm) else None

    def take_mean(self) -> tuple[float, float | None]:
        """The mean loss since the last call, and the newest gradient norm if it is finite; call after `drain`."""
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        return mean, self._last_norm

    def take_epoch_mean(self) -> float:
        """The mean loss of the epoch that ends here; call after `drain`."""
        mean = self._epoch_sum / max(self._epoch_count, 1)
        self._epoch_sum, self._epoch_count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; call after `drain`."""
        return {"losses": list(self._losses), "epoch_sum": self._epoch_sum, "epoch_count": self._epoch_count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._losses = list(state["losses"])
        self._epoch_sum, self._epoch_count = state["epoch_sum"], state["epoch_count"]


def require_finite_weights(model: nn.Module, step: int) -> None:
    """Raise `NumericalError` if a parameter is not finite: a checkpoint of it would be worth nothing."""
    largest = torch.stack([norm.float() for norm in torch._foreach_norm(list(model.parameters()), math.inf)]).max()
    if not math.isfinite(largest.item()):
        raise NumericalError(f"the weights after step {step} are not finite")
