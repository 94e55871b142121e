"""fuse() speeds up models that others built and changes nothing else: same logits, same parameters, same names."""

import copy
import functools
import threading

import pytest
import timm
import torch
from timm.models.sequencer import Sequencer2d
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.utils import prune

import sequencer2d
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.nn.rnn2d import RNN2D
from tests.models.small import randomize, small_model

SMALL = {
    "layers": (1, 1),
    "patch_sizes": (7, 2),
    "embed_dims": (16, 32),
    "hidden_sizes": (4, 8),
    "mlp_ratios": (3.0, 3.0),
    "num_classes": 5,
}


class Mixer(nn.Module):
    """Two recurrent layers and a linear one, as the authors name them."""

    def __init__(self, dim=8, hidden=2, layer=nn.LSTM, **options):
        super().__init__()
        options = {"batch_first": True, "bidirectional": True} | options
        self.rnn_v = layer(dim, hidden, **options)
        self.rnn_h = layer(dim, hidden, **options)
        self.fc = nn.Linear((4 if options["bidirectional"] else 2) * hidden, dim)

    def forward(self, x):
        batch, height, width, channels = x.shape
        columns = x.transpose(1, 2).reshape(batch * width, height, channels)
        vertical = self.rnn_v(columns)[0].reshape(batch, width, height, -1).transpose(1, 2)
        horizontal = self.rnn_h(x.reshape(batch * height, width, channels))[0].reshape(batch, height, width, -1)
        return self.fc(torch.cat([vertical, horizontal], dim=-1))


def timms(**options):
    torch.manual_seed(0)
    return randomize(Sequencer2d(**SMALL | options)).eval()


def images(*size, seed=1):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(seed))


def assert_same_function(before, after, x):
    """Equal to float rounding: at most four times what the original errs by in float32."""
    with torch.no_grad():
        expected = before(x)
        budget = 4 * (copy.deepcopy(before).double()(x.double()) - expected).abs().max()
        assert expected.std() > 0.01
        assert (after(x) - expected).abs().max() <= budget.clamp_min(torch.finfo(torch.float32).eps)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": False},
        {"union": "add"},
        {"union": "vertical"},
        {"union": "horizontal"},
        {"with_fc": False, "embed_dims": (16, 32), "hidden_sizes": (4, 8)},
    ],
    ids=str,
)
def test_timms_models_keep_their_logits(options):
    model = timms(**options)
    before = copy.deepcopy(model)
    report = sequencer2d.fuse(model)
    assert [entry.path for entry in report] == ["stages.0.blocks.0.rnn_tokens", "stages.1.blocks.0.rnn_tokens"]
    assert not any(isinstance(module, nn.LSTM) for module in model.modules())
    assert_same_function(before, model, images(28, 42))


@pytest.mark.parametrize("name, mixers", [("sequencer2d_s", 18), ("sequencer2d_m", 24)])
def test_timms_variants_are_fused_whole(name, mixers):
    model = randomize(timm.create_model(name, num_classes=5)).eval()
    before = copy.deepcopy(model)
    assert len(sequencer2d.fuse(model)) == mixers
    assert_same_function(before, model, images(28, 28))


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_authors_mixer_keeps_its_output(layer, bidirectional):
    model = nn.Sequential(Mixer(layer=layer, bidirectional=bidirectional))
    before = copy.deepcopy(model)
    (entry,) = sequencer2d.fuse(model)
    assert str(entry).startswith("0: Mixer → RNN2D(8, 2")
    assert_same_function(before, model, torch.randn(2, 3, 4, 8))


def test_parameters_are_the_same_objects_under_the_same_names_in_the_same_order():
    model = timms()
    before = dict(model.named_parameters())
    keys = list(model.state_dict())
    sequencer2d.fuse(model)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert list(model.state_dict()) == keys
    model.load_state_dict(timms().state_dict(), strict=True)


def test_an_optimizer_made_before_trains_the_model_as_it_would_have():
    models = [timms().train(), timms().train()]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    sequencer2d.fuse(models[1])
    assert models[1].stages[0].blocks[0].rnn_tokens.training
    for model, optimizer in zip(models, optimizers, strict=True):
        for step in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images(28, 28, seed=step)), torch.tensor([0, 3])).backward()
            optimizer.step()
    start = timms().state_dict()
    for name, expected in models[0].state_dict().items():
        moved = (expected - start[name]).abs().max()
        assert moved > 0, name
        assert (models[1].state_dict()[name] - expected).abs().max() <= 1e-3 * moved, name


def test_an_optimizers_state_moves_between_the_model_and_its_fused_form():
    """torch numbers the parameters of a saved optimizer by their position."""
    model = timms().train()
    optimizer = torch.optim.AdamW(model.parameters())
    model(images(28, 28)).square().sum().backward()
    optimizer.step()
    fused = timms()
    sequencer2d.fuse(fused)
    again = torch.optim.AdamW(fused.parameters())
    again.load_state_dict(optimizer.state_dict())
    state = {name: optimizer.state[parameter]["exp_avg"] for name, parameter in model.named_parameters()}
    assert all(torch.equal(again.state[value]["exp_avg"], state[name]) for name, value in fused.named_parameters())


def test_weight_averages_go_on():
    """Those made before and those made after, of timm, which go by position."""
    model = timms()
    earlier = ModelEmaV3(model, decay=0.5)
    sequencer2d.fuse(model)
    later = ModelEmaV3(model, decay=0.5)
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for average in (earlier, later):
        average.update(model)
        for name, parameter in average.module.named_parameters():
            torch.testing.assert_close(parameter.data, start[name] + 0.5, msg=name)


def test_the_implementation_is_the_one_asked_for():
    model = timms()
    sequencer2d.fuse(model, implementation="reference")
    assert {module.implementation for module in model.modules() if isinstance(module, RNN2D)} == {"reference"}
    with pytest.raises(ConfigError, match="sycl"):
        sequencer2d.fuse(timms(), implementation="sycl")


def test_nothing_to_do_for_our_own_models():
    assert sequencer2d.fuse(small_model()) == []
    fused = timms()
    sequencer2d.fuse(fused)
    assert sequencer2d.fuse(fused) == []


@pytest.mark.parametrize(
    "mixer, reason",
    [
        (lambda: Mixer(num_layers=2), r"0\.rnn_v: it has 2 layers"),
        (lambda: Mixer(bias=False), "no biases"),
        (lambda: Mixer(batch_first=False), "batch_first=False"),
        (lambda: Mixer(hidden=4, proj_size=2), "projections"),
        (lambda: Mixer(layer=nn.RNN, nonlinearity="relu"), "a ReLU cell"),
    ],
    ids=["layers", "bias", "order", "projection", "relu"],
)
def test_what_ours_cannot_stand_for_is_refused(mixer, reason):
    model = nn.Sequential(mixer())
    with pytest.raises(InputError, match=reason):
        sequencer2d.fuse(model)
    assert type(model[0]) is Mixer


def test_axes_that_differ_are_refused():
    mixer = Mixer()
    mixer.rnn_h = nn.LSTM(8, 4, batch_first=True, bidirectional=True)
    with pytest.raises(InputError, match=r"rnn_h: it has another size or kind"):
        sequencer2d.fuse(nn.Sequential(mixer))


def test_a_refusal_leaves_every_module_as_it_was():
    model = nn.Sequential(Mixer(), Mixer(num_layers=2))
    with pytest.raises(InputError, match=r"1\.rnn_v"):
        sequencer2d.fuse(model)
    assert [type(module) for module in model] == [Mixer, Mixer]


def test_a_sum_without_a_linear_layer_is_refused():
    with pytest.raises(InputError, match="adds its axes"):
        sequencer2d.fuse(timms(union="add", with_fc=False, embed_dims=(16, 32), hidden_sizes=(8, 16)))


def test_models_without_a_recurrence_are_refused():
    with pytest.raises(InputError, match=r"Linear has no recurrent layer and no recurrent token mixer"):
        sequencer2d.fuse(nn.Linear(3, 3))


@pytest.mark.parametrize("mixer", [Mixer(), RNN2D(8, 2)], ids=["theirs", "ours"])
def test_a_mixer_alone_cannot_be_replaced_in_place(mixer):
    with pytest.raises(InputError, match="give the model that holds it"):
        sequencer2d.fuse(mixer)


class Louder(Mixer):
    """A mixer whose output is scaled by less than bfloat16 can tell: nothing in its layers says so."""

    def forward(self, x):
        return 1.001 * super().forward(x)


class Subclassed(nn.LSTM):
    def forward(self, x, state=None):
        output, state = super().forward(x, state)
        return 2 * output, state


class Swapped(Mixer):
    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def spectral(mixer):
    nn.utils.parametrizations.spectral_norm(mixer.rnn_v, "weight_hh_l0")


def weight_norm(mixer):
    nn.utils.parametrizations.weight_norm(mixer.rnn_h, "weight_ih_l0")


def pruned(mixer):
    prune.l1_unstructured(mixer.rnn_h, "weight_ih_l0", amount=0.5)


def hooked(mixer):
    mixer.rnn_v.register_forward_hook(lambda module, inputs, output: (2 * output[0], output[1]))


def patched(mixer):
    forward = mixer.forward
    mixer.forward = lambda x: forward(x) + 1


def subclassed(mixer):
    mixer.rnn_h = Subclassed(8, 2, batch_first=True, bidirectional=True)


def wrapped(mixer):
    mixer.rnn_v = nn.Sequential(mixer.rnn_v)


def with_dropout(mixer):
    mixer.drop = nn.Dropout(0.5)


def of_two_dtypes(mixer):
    mixer.rnn_h.double()


@pytest.mark.parametrize(
    "change, named",
    [
        (spectral, r"0\.rnn_v.*parametrized.*remove_parametrizations"),
        (weight_norm, r"0\.rnn_h.*parametrized"),
        (pruned, r"0\.rnn_h.*hooks.*remove"),
        (hooked, r"0\.rnn_v.*hooks"),
        (patched, r"0: it has a forward of its own"),
        (subclassed, r"0\.rnn_h: it is a Subclassed"),
        (wrapped, r"0\.rnn_v: it is a Sequential"),
        (with_dropout, r"0: it has a Dropout named drop"),
        (of_two_dtypes, r"0\.rnn_h.*(dtype|dtypes)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_mixer_that_is_more_than_its_class_is_refused_and_nothing_is_replaced(change, named):
    model = nn.Sequential(Mixer(), Mixer())
    change(model[0])
    before = list(model.modules())
    with pytest.raises(InputError, match=named):
        sequencer2d.fuse(model)
    with pytest.raises(InputError, match=named):
        sequencer2d.optimize(model, compile=False)
    assert list(model.modules()) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", [Louder, Swapped])
def test_a_mixer_that_computes_something_else_is_refused(kind, dtype):
    model = nn.Sequential(Mixer(), kind()).to(dtype)
    with pytest.raises(InputError, match=rf"1: a {kind.__name__} returns something else"):
        sequencer2d.fuse(model)
    assert type(model[0]) is Mixer


class Narrow(Mixer):
    def forward(self, x):
        return self.fc(x)


def test_the_reason_why_a_mixer_fails_is_one_line():
    """torch's messages about shapes may go on with a trace or a list of the arguments."""
    with pytest.raises(InputError, match=r"cannot fuse 0: it does not map tokens .*\(mat1 and mat2") as caught:
        sequencer2d.fuse(nn.Sequential(Narrow(hidden=3)))
    assert "\n" not in str(caught.value)


class Remembering(Mixer):
    """Keeps its last output, which has a gradient and cannot be copied, and a lock, which cannot either."""

    def __init__(self):
        super().__init__()
        self.lock, self.last = threading.Lock(), None

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_a_mixer_remembers_does_not_keep_it_from_being_replaced(dtype):
    mixer = Remembering().to(dtype)
    mixer.register_forward_hook(functools.partial(lambda *args, lock: None, lock=threading.Lock()))
    mixer(torch.randn(1, 3, 4, 8, dtype=dtype))
    last = mixer.last
    assert len(sequencer2d.fuse(nn.Sequential(mixer))) == 1
    assert mixer.last is last


@pytest.mark.parametrize("union", ["cat", "add"])
@pytest.mark.parametrize("axis", ["rnn_v", "rnn_h"])
def test_a_changed_layer_in_timms_model_is_no_absent_one(union, axis):
    model = timms(union=union)
    layer = model.stages[1].blocks[0].rnn_tokens.get_submodule(axis)
    nn.utils.parametrizations.spectral_norm(layer, "weight_hh_l0")
    before = model(images(28, 28))
    with pytest.raises(InputError, match=rf"stages\.1\.blocks\.0\.rnn_tokens\.{axis}.*parametrized"):
        sequencer2d.fuse(model)
    assert torch.equal(model.eval()(images(28, 28)), before)


def test_hooks_on_a_mixer_move_to_its_replacement_and_their_handles_still_remove_them():
    model = nn.Sequential(Mixer())
    seen = []
    handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    sequencer2d.fuse(model)
    model(torch.randn(1, 3, 4, 8))
    assert seen == [(1, 3, 4, 8)]
    handle.remove()
    model(torch.randn(1, 3, 4, 8))
    assert len(seen) == 1


def test_a_mixer_that_stands_in_two_places_is_replaced_in_both_by_one():
    shared = Mixer()
    model = nn.Sequential(shared, nn.Sequential(shared))
    before = copy.deepcopy(model)
    assert [entry.path for entry in sequencer2d.fuse(model)] == ["0", "1.0"]
    assert model[0] is model[1][0]
    assert_same_function(before, model, torch.randn(2, 3, 4, 8))


def test_training_modes_survive_the_comparison():
    model = nn.Sequential(Mixer(), Mixer().eval()).train()
    model[1].eval()
    sequencer2d.fuse(model)
    assert (model[0].training, model[1].training) == (True, False)
