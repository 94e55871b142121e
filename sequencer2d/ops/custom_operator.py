"""What this package tells PyTorch of an operator of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operator:
    """A row of the table that `registration` registers.

    Attributes:
        schema: the operator's name, arguments and results in PyTorch's notation.
        run: computes it on any device.
        fake: makes results of the right shapes and dtypes, without values.
        cuda: computes it on CUDA, where that differs from `run`.
        differentiated: an autograd function of this package calls the operator, so its results need no gradient of
            their own. The other operators are for inference and refuse to be differentiated.
    """

    schema: str
    run: Callable[..., Any]
    fake: Callable[..., Any]
    cuda: Callable[..., Any] | None = None
    differentiated: bool = True

    @property
    def name(self) -> str:
        return self.schema.partition("(")[0]
