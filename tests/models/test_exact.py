"""What makes a module more than an instance of its class."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sequencer2d.models.exact import is_exactly, is_plain, own_hooks, peculiarity, share_hooks, unusual_state

LINEAR = "torch.nn.modules.linear.Linear"


class Wrapped(Tensor):
    """A tensor that holds others, as quantized and sharded ones do."""

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return [], None

    @staticmethod
    def __tensor_unflatten__(*arguments: Any) -> "Wrapped": ...


class Twice(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def changed(change: str) -> nn.Module:
    module = nn.Linear(2, 2)
    if change == "parametrized":
        parametrize.register_parametrization(module, "weight", Twice())
    elif change == "hooks":
        module.register_forward_pre_hook(lambda *_: None)
    elif change == "forward":
        module.forward = lambda x: x  # type: ignore[method-assign]
    elif change == "wrapped":
        module.register_buffer("scale", torch.zeros(2).as_subclass(Wrapped))
    return module


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("", None),
        ("parametrized", r"has parametrized weights \(weight\)"),
        ("hooks", r"has hooks \(changed.<locals>.<lambda>\), which would be lost"),
        ("forward", "has a forward of its own"),
        ("wrapped", "holds scale as a Wrapped"),
    ],
)
def test_what_is_more_than_its_class_is_said(change: str, says: str | None) -> None:
    module = changed(change)
    found = peculiarity(module)
    assert re.match(says, found) if says else found is None
    assert is_exactly(module, "other", LINEAR) is (says is None)
    around = nn.Sequential(module)
    assert peculiarity(around) is None, "a part's matter is the part's own"
    assert is_plain(around) is (says is None)


def test_hooks_may_be_ignored_and_names_must_be_the_class_own() -> None:
    module = changed("hooks")
    assert peculiarity(module, ignore_hooks=True) is None
    assert own_hooks(module, ignore_package="tests") == ["changed.<locals>.<lambda>"], "a function is of builtins"

    class Own(nn.Linear): ...

    assert not is_exactly(Own(2, 2), LINEAR)
    assert not is_exactly(object(), "builtins.object")


def test_hooks_go_along_and_their_handles_still_remove_them() -> None:
    seen: list[str] = []
    module, replacement = nn.Linear(2, 2), nn.Linear(2, 2)
    handle = module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    assert share_hooks(module, replacement) is replacement
    replacement(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert seen == ["forward", "backward"]
    handle.remove()
    replacement(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert seen == ["forward", "backward", "backward"]


def test_recurrent_layers_hold_the_parameters_of_their_class_alone() -> None:
    assert unusual_state(nn.LSTM(2, 3)) is None
    for add in ("register_buffer", "register_parameter"):
        layer = nn.GRU(2, 3)
        getattr(layer, add)("extra", nn.Parameter(torch.zeros(1)) if add == "register_parameter" else torch.zeros(1))
        assert unusual_state(layer) == "does not hold just the parameters of its class (extra differ)"
    layer = nn.GRU(2, 3)
    layer.inner = nn.Linear(1, 1)
    assert unusual_state(layer) == "does not hold just the parameters of its class (inner differ)"
    layer = nn.GRU(2, 3)
    layer._compiled_call_impl = lambda x: x
    assert unusual_state(layer) == "was compiled in place: call its compile() afterwards"
