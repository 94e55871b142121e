"""fuse() puts our LSTM, GRU and RNN where torch's stood in any model, and says what it replaced and what it left."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import sequencer2d
from sequencer2d.errors import ConfigError, InputError
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


def dropped(layer):
    """As code that drops recurrent weights does: a parameter under another name, the weight computed from it."""
    raw = layer._parameters.pop("weight_hh_l0")
    layer.register_parameter("weight_hh_l0_raw", raw)
    layer.weight_hh_l0 = nn.functional.dropout(raw, 0.5)


@pytest.mark.parametrize(
    "layer, change, reason",
    [
        (lambda: Subclassed(3, 4), None, "is a Subclassed"),
        (lambda: nn.LSTM(3, 4, proj_size=2), None, "projections"),
        (lambda: nn.RNN(3, 4, nonlinearity="relu"), None, "ReLU"),
        (lambda: nn.GRU(3, 4), parametrized, "parametrized"),
        (lambda: nn.GRU(3, 4), pruned, "a hook that computes its weights"),
        (lambda: nn.LSTM(3, 4), lambda layer: layer.register_buffer("h0", torch.zeros(1, 1, 4)), "(h0 differ)"),
        (lambda: nn.LSTM(3, 4), lambda layer: layer.add_module("norm", nn.LayerNorm(4)), "(norm differ)"),
        (lambda: nn.LSTM(3, 4), dropped, "(weight_hh_l0, weight_hh_l0_raw differ)"),
        (lambda: nn.LSTM(3, 4), lambda layer: layer.compile(backend="eager"), "compiled in place"),
        (lambda: nn.LSTMCell(3, 4), None, "one step at a call"),
    ],
    ids=[
        "subclass", "projections", "relu", "parametrized", "pruned", "buffer", "module", "dropped", "compiled", "cell",
    ],
)  # fmt: skip
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
    layer = model[0]
    handles = [
        layer.register_forward_pre_hook(lambda module, inputs: seen.append(("forward pre", type(module)))),
        layer.register_forward_hook(lambda module, inputs, output: seen.append(("forward", type(module)))),
        layer.register_full_backward_pre_hook(lambda module, grads: seen.append(("backward pre", type(module)))),
        layer.register_full_backward_hook(lambda module, grads, more: seen.append(("backward", type(module)))),
        layer.register_state_dict_pre_hook(lambda module, *_: seen.append(("save pre", type(module)))),
        layer.register_state_dict_post_hook(lambda module, *_: seen.append(("save", type(module)))),
        layer.register_load_state_dict_post_hook(lambda module, keys: seen.append(("load", type(module)))),
    ]
    sequencer2d.fuse(model)

    def use():
        model(torch.randn(2, 1, 3, requires_grad=True))[0].sum().backward()
        model.load_state_dict(model.state_dict())
        return [name for name, kind in seen if kind is LSTM]

    assert use() == ["forward pre", "forward", "backward pre", "backward", "save pre", "save", "load"]
    for handle in handles:
        handle.remove()
    seen.clear()
    assert use() == []


def test_weights_that_a_layer_holds_twice_stay_one():
    layer = nn.LSTM(3, 4, bidirectional=True)
    layer.weight_hh_l0_reverse = layer.weight_hh_l0
    model = nn.ModuleList([layer, nn.LSTM(3, 4)])
    model[1].bias_hh_l0 = layer.bias_hh_l0
    x = torch.randn(2, 1, 3)
    expected, names = layer(x)[0], list(model.state_dict())
    sequencer2d.fuse(model, implementation="reference")
    torch.testing.assert_close(model[0](x)[0], expected)
    assert list(model.state_dict()) == names
    assert model[0].weight_hh_l0_reverse is model[0].weight_hh_l0
    assert model[1].bias_hh_l0 is model[0].bias_hh_l0


def test_forward_does_not_lay_out_the_weights_again(monkeypatch):
    """For cuDNN they lie in one piece of memory, which moving a layer to a GPU makes."""
    model = nn.Sequential(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    sequencer2d.fuse(model)
    calls = []
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda self: calls.append(self))
    model(torch.randn(2, 1, 3))
    assert calls == []
    model[0].weight_hh_l0 = nn.Parameter(torch.zeros(16, 4))
    model(torch.randn(2, 1, 3))
    assert calls == [model[0]]


def test_what_the_models_code_keeps_on_a_layer_stays_there():
    model = nn.Sequential(nn.GRU(3, 4))
    model[0].is_causal = True
    sequencer2d.fuse(model)
    assert model[0].is_causal


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*", "ignore:torch.ao.quantization", "ignore:torch.quantize_per")
@pytest.mark.parametrize(
    "change, reason",
    [
        (torch.jit.script, "is scripted"),
        (lambda model: torch.ao.quantization.quantize_dynamic(model, {nn.LSTM}, torch.qint8), "is quantized"),
    ],
    ids=["scripted", "quantized"],
)
def test_a_model_that_was_changed_first_is_said_to_be(change, reason):
    report = sequencer2d.fuse(change(nn.Sequential(nn.LSTM(3, 4))))
    assert report == []
    assert [(entry.path, reason in entry.reason) for entry in report.left] == [("0", True)]


def test_a_traced_model_calls_the_replacement():
    model = nn.Sequential(nn.LSTM(3, 4))
    sequencer2d.fuse(model)
    x, traced = torch.randn(2, 1, 3), torch.fx.symbolic_trace(model)
    assert [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    assert torch.equal(traced(x)[0], model(x)[0])


def test_a_layer_in_two_places_is_replaced_by_one_and_modes_and_dtypes_stay():
    shared = nn.LSTM(3, 3, dtype=torch.float64).eval()
    shared.weight_ih_l0.requires_grad_(False)
    model = nn.ModuleList([shared, nn.Sequential(shared)])
    assert [entry.path for entry in sequencer2d.fuse(model)] == ["0", "1.0"]
    assert model[0] is model[1][0]
    assert not model[0].training
    assert not model[0].weight_ih_l0.requires_grad
    assert model[0].weight_hh_l0.dtype is torch.float64


def test_a_second_call_finds_nothing_and_says_how_to_change_what_it_would_not():
    model = DualPath()
    sequencer2d.fuse(model)
    assert sequencer2d.fuse(model) == []
    assert str(sequencer2d.fuse(model)) == "nothing to replace"
    left = sequencer2d.fuse(model, implementation="reference").left
    assert [entry.path for entry in left] == ["intra", "inter", "tail.0"]
    assert "set_implementation('reference')" in left[0].reason


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: sequencer2d.fuse(nn.LSTM(3, 4)), InputError, "give what holds it"),
        (lambda: sequencer2d.fuse(Subclassed(3, 4)), InputError, "give what holds it"),
        (lambda: sequencer2d.fuse(DualPath), InputError, "got the class DualPath"),
        (lambda: sequencer2d.fuse([nn.LSTM(3, 4)]), InputError, "got an object of type list"),
        (lambda: sequencer2d.fuse(nn.Linear(3, 4), implementation="sycl"), ConfigError, "sycl"),
    ],
)
def test_what_cannot_be_fused_at_all_is_refused_in_one_line(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_moves_and_conversions_reach_the_replacement():
    model = DualPath()
    sequencer2d.fuse(model)
    model.double()
    assert model.intra.weight_hh_l0.dtype is torch.float64
    assert model(torch.randn(2, 3, 4, 6, dtype=torch.float64))[0].dtype is torch.float64
