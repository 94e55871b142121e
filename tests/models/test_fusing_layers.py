"""fuse() puts our LSTM, GRU and RNN where torch's stood in any model, and says what it replaced and what it left."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import sequencer2d
from sequencer2d.errors import InputError
from sequencer2d.nn import GRU, LSTM, RNN


class DualPath(nn.Module):
    """The core of the dual-path separators: one recurrence within chunks, one over them."""

    def __init__(self, channels=6, hidden=5):
        super().__init__()
        self.intra = nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)
        self.inter = nn.GRU(channels, hidden, num_layers=2, batch_first=True, dropout=0.1)
        self.tail = nn.ModuleList([nn.RNN(channels, hidden)])
        self.projections = nn.ModuleList([nn.Linear(2 * hidden, channels), nn.Linear(hidden, channels)])

    def forward(self, x):
        batch, chunks, steps, channels = x.shape
        y, _ = self.intra(x.reshape(batch * chunks, steps, channels))
        x = x + self.projections[0](y).reshape(x.shape)
        y, _ = self.inter(x.transpose(1, 2).reshape(batch * steps, chunks, channels))
        x = x + self.projections[1](y).reshape(batch, steps, chunks, channels).transpose(1, 2)
        return x, self.tail[0](x[:, 0])[1]


def test_every_layer_is_replaced_and_the_outputs_are_equal():
    model = DualPath().eval()
    before, parameters = copy.deepcopy(model), dict(model.named_parameters())
    report = sequencer2d.fuse(model)
    assert [entry.path for entry in report] == ["intra", "inter", "tail.0"]
    assert str(report).splitlines()[0].startswith("intra: LSTM(6, 5, batch_first=True, bidirectional=True) → ")
    assert report.left == []
    assert (type(model.intra), type(model.inter), type(model.tail[0])) == (LSTM, GRU, RNN)
    after = dict(model.named_parameters())
    assert list(after) == list(parameters)
    assert all(after[name] is parameters[name] for name in after)
    x = torch.randn(2, 3, 4, 6)
    assert all(torch.equal(a, b) for a, b in zip(model(x), before(x), strict=True))


def test_plain_pytorch_through_the_same_arithmetic_as_the_kernels_gives_the_same_gradients():
    models = [DualPath().double().eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    sequencer2d.fuse(models[1], implementation="reference")
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    for model in models:
        sum(part.square().sum() for part in model(x)).backward()
    for ours, theirs in zip(models[1].parameters(), models[0].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_a_short_training_follows_the_one_without():
    """Twenty steps of SGD, dropout included, on a CPU: equal to the bit, and the loss falls."""
    losses = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = DualPath()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        if fused:
            sequencer2d.fuse(model)
        x, target = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 6)
        losses.append([])
        for _ in range(20):
            loss = (model(x)[0] - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


class Subclassed(nn.LSTM):
    """May do anything."""


def parametrized(layer):
    nn.utils.parametrizations.spectral_norm(layer, "weight_hh_l0")


def pruned(layer):
    prune.l1_unstructured(layer, "weight_ih_l0", amount=0.5)


@pytest.mark.parametrize(
    "layer, change, reason",
    [
        (lambda: Subclassed(3, 4), None, "is a Subclassed"),
        (lambda: nn.LSTM(3, 4, proj_size=2), None, "projections"),
        (lambda: nn.RNN(3, 4, nonlinearity="relu"), None, "ReLU"),
        (lambda: nn.GRU(3, 4), parametrized, "parametrized"),
        (lambda: nn.GRU(3, 4), pruned, "a hook that computes its weights"),
    ],
    ids=["subclass", "projections", "relu", "parametrized", "pruned"],
)
def test_what_stays_is_named_with_its_reason(layer, change, reason):
    model = nn.ModuleDict({"odd": layer(), "plain": nn.LSTM(3, 4)})
    if change:
        change(model["odd"])
    kept = model["odd"]
    report = sequencer2d.fuse(model)
    assert [entry.path for entry in report] == ["plain"]
    (left,) = report.left
    assert left.path == "odd"
    assert reason in left.reason
    assert f"odd: {type(kept).__name__}" in str(report)
    assert model["odd"] is kept


def test_hooks_move_and_their_handles_still_remove_them():
    model, seen = nn.Sequential(nn.LSTM(3, 4)), []
    handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    sequencer2d.fuse(model)
    model(torch.randn(2, 1, 3))
    handle.remove()
    model(torch.randn(2, 1, 3))
    assert seen == [LSTM]


def test_a_layer_in_two_places_is_replaced_by_one_and_modes_and_dtypes_stay():
    shared = nn.LSTM(3, 3, dtype=torch.float64).eval()
    shared.weight_ih_l0.requires_grad_(False)
    model = nn.ModuleList([shared, nn.Sequential(shared)])
    assert [entry.path for entry in sequencer2d.fuse(model)] == ["0", "1.0"]
    assert model[0] is model[1][0]
    assert not model[0].training
    assert not model[0].weight_ih_l0.requires_grad
    assert model[0].weight_hh_l0.dtype is torch.float64


def test_a_second_call_finds_nothing_and_a_layer_alone_is_refused():
    model = DualPath()
    sequencer2d.fuse(model)
    assert sequencer2d.fuse(model) == []
    assert str(sequencer2d.fuse(model)) == "nothing to replace"
    with pytest.raises(InputError, match="give what holds it"):
        sequencer2d.fuse(nn.LSTM(3, 4))


def test_moves_and_conversions_reach_the_replacement():
    model = DualPath()
    sequencer2d.fuse(model)
    model.double()
    assert model.intra.weight_hh_l0.dtype is torch.float64
    assert model(torch.randn(2, 3, 4, 6, dtype=torch.float64))[0].dtype is torch.float64
