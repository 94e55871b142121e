"""What exported graphs compute in place of a mixer, run here as Python: equal to the mixer's own output."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError
from sequencer2d.export import loop
from sequencer2d.export.loop import Loop
from sequencer2d.export.mixers import Axes, Mixer, OneDNN, Operator, with_constant_weights
from sequencer2d.nn.rnn2d import RNN2D

SHAPES: list[dict[str, Any]] = [
    {}, {"axes": "vertical"}, {"axes": "horizontal"}, {"axes": "flatten"}, {"bidirectional": False}, {"fusion": "add"},
]  # fmt: skip


def python_loop(unfinished: Callable[..., Tensor], body: Callable[..., Any], state: tuple[Tensor, ...]) -> Any:
    """What torch's while_loop computes."""
    while unfinished(*state):
        state = body(*state)
    return state


@pytest.mark.parametrize("options", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("cell", "kind"), [("lstm", Loop), ("gru", Loop), ("rnn", Loop), ("lstm", OneDNN), ("gru", Operator)]
)
def test_a_mixer_of_a_graph_is_the_mixer(
    cell: str, kind: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "while_loop", python_loop)
    mixer = RNN2D(6, 4, cell, **options).eval()
    recurrence = Operator(mixer) if kind is Operator else Axes(mixer, kind)
    x = torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(Mixer(mixer, recurrence)(x), mixer(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(Mixer(mixer, recurrence)(x[:, :1]), mixer(x[:, :1]), rtol=1e-5, atol=1e-6)


def test_every_mixer_of_a_copy_is_replaced() -> None:
    model = nn.Sequential(nn.Sequential(RNN2D(6, 4), nn.Dropout()), RNN2D(6, 4)).train()
    copy = with_constant_weights(model, Operator)
    assert [type(part) for part in (copy[0][0], copy[1])] == [Mixer, Mixer]
    assert not any(part.training for part in copy.modules())
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    assert isinstance(model[1], RNN2D)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    x = torch.randn(1, 2, 3, 6)
    torch.testing.assert_close(copy(x), model.eval()(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="Sequential has no recurrent mixer of this package"):
        with_constant_weights(nn.Sequential(nn.Linear(2, 2)), Operator)
