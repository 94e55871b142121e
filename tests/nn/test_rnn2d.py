"""The token mixer is the paper's equations 5 to 7, computed here by torch's own recurrent layers."""

import pytest
import torch
from torch import nn

from sequencer2d.errors import ConfigError
from sequencer2d.nn.rnn2d import RNN2D

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def torchs(weights, x_NTC):
    """What torch's layer gives for sequences, with the weights of ours."""
    options = {"batch_first": True, "bidirectional": weights.bidirectional}
    layer = LAYERS[weights.cell](weights.input_size, weights.hidden_size, **options).to(x_NTC.dtype)
    layer.load_state_dict(weights.state_dict(), strict=True)
    return layer(x_NTC)[0]


def by_torch(mixer, x):
    batch, height, width, channels = x.shape
    outputs = []
    if hasattr(mixer, "rnn_v"):
        columns = x.transpose(1, 2).reshape(batch * width, height, channels)
        outputs.append(torchs(mixer.rnn_v, columns).reshape(batch, width, height, -1).transpose(1, 2))
    if hasattr(mixer, "rnn_h"):
        rows = x.reshape(batch * height, width, channels)
        outputs.append(torchs(mixer.rnn_h, rows).reshape(batch, height, width, -1))
    if hasattr(mixer, "rnn"):
        sequence = x.reshape(batch, height * width, channels)
        outputs.append(torchs(mixer.rnn, sequence).reshape(batch, height, width, -1))
    return mixer.fc(sum(outputs) if mixer.fusion == "add" else torch.cat(outputs, dim=-1))


@pytest.mark.parametrize("cell", LAYERS)
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    "axes, fusion",
    [
        ("both", "concat"),
        ("both", "add"),
        ("both", "none"),
        ("vertical", "concat"),
        ("horizontal", "none"),
        ("flatten", "concat"),
    ],
)
@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_equals_torchs_layers(cell, bidirectional, axes, fusion, implementation):
    mixer = RNN2D(6, 3, cell, axes, bidirectional, fusion, implementation).double()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    expected = by_torch(mixer, x)
    torch.testing.assert_close(mixer(x), expected, rtol=1e-10, atol=1e-12)
    assert mixer.output_dim == expected.shape[-1]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_grids_of_one_row_or_column(size):
    mixer = RNN2D(6, 3).double()
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), by_torch(mixer, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("implementation", ["aten", "reference"])
def test_every_parameter_and_the_input_get_their_gradient(implementation):
    mixer = RNN2D(6, 3, implementation=implementation).double()
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, x)
    mixer(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in mixer.parameters())


def test_a_vertical_scan_sees_its_column_only_and_so_for_rows():
    x = torch.randn(1, 4, 5, 6)
    changed = x.clone()
    changed[0, 1, 2] += 1
    for axes, expected in (
        ("vertical", [(row, 2) for row in range(4)]),
        ("horizontal", [(1, col) for col in range(5)]),
    ):
        mixer = RNN2D(6, 3, axes=axes)
        differs = (mixer(changed) - mixer(x)).abs().amax(dim=(0, 3)) > 0
        assert [tuple(place) for place in differs.nonzero().tolist()] == expected


def test_parameters_have_timms_names_and_shapes():
    shapes = {name: tuple(value.shape) for name, value in RNN2D(8, 2).state_dict().items()}
    expected = {"fc.weight": (8, 8), "fc.bias": (8,)}
    for layer in ("rnn_v", "rnn_h"):
        for suffix in ("", "_reverse"):
            expected |= {
                f"{layer}.weight_ih_l0{suffix}": (8, 8),
                f"{layer}.weight_hh_l0{suffix}": (8, 2),
                f"{layer}.bias_ih_l0{suffix}": (8,),
                f"{layer}.bias_hh_l0{suffix}": (8,),
            }
    assert shapes == expected
    assert {name.split(".")[0] for name in RNN2D(8, 2, axes="flatten").state_dict()} == {"rnn", "fc"}


def test_starts_uniform_within_one_over_the_root_of_the_width():
    weights = RNN2D(64, 16).rnn_v.weight_hh_l0
    assert weights.abs().max() <= 0.25
    assert weights.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.1)


def test_half_precision_under_autocast():
    mixer, x = RNN2D(8, 4), torch.randn(2, 3, 4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), mixer(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    "options, what",
    [
        ({"cell": "qrnn"}, "unknown cell 'qrnn'"),
        ({"axes": "diagonal"}, "unknown axes 'diagonal'"),
        ({"fusion": "mean"}, "unknown fusion 'mean'"),
        ({"axes": "vertical", "fusion": "add"}, "there is one"),
        ({"implementation": "sycl"}, "unknown implementation 'sycl'"),
    ],
    ids=str,
)
def test_unknown_options_are_refused(options, what):
    with pytest.raises(ConfigError, match=what):
        RNN2D(8, 2, **options)
