import pytest
import timm
import torch
from torch import nn

from sequencer2d.benchmark.cost import count_macs, count_parameters
from sequencer2d.models import create_model, model_config

PAPER = {"sequencer2d_s": 8.4e9, "sequencer2d_m": 11.1e9, "sequencer2d_l": 16.6e9}


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.mark.parametrize("name", PAPER)
def test_macs_are_the_papers(name: str) -> None:
    assert count_macs(on_meta(name)) == pytest.approx(PAPER[name], rel=0.01)


def test_timms_sequencer_has_the_macs_of_ours() -> None:
    assert count_macs(timm.create_model("sequencer2d_s")) == count_macs(on_meta("sequencer2d_s"))


@pytest.mark.parametrize("name", ["sequencer2d_n", "sequencer2d_s_gru", "sequencer2d_s_nofusion", "vsequencer_h_s"])
def test_macs_follow_from_the_sizes(name: str) -> None:
    model, config = on_meta(name), model_config(name)
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[config.cell]
    scans = {"both": 2}.get(config.axes, 1) * (2 if config.bidirectional else 1)
    macs, side, before = 0, 224, 3
    for patch, depth, dim, hidden in zip(
        config.patch_sizes, config.depths, config.dims, config.hidden_dims, strict=True
    ):
        side //= patch
        recurrence = scans * gates * hidden * (dim + hidden)
        fusion = scans * hidden * dim if config.fusion != "none" else 0
        macs += side**2 * (before * patch**2 * dim + depth * (recurrence + fusion + 2 * 3 * dim**2))
        before = dim
    assert count_macs(model) == macs + before * 1000


@pytest.mark.parametrize("kind, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_every_step_layer_and_direction_of_torchs_recurrences_counts(
    kind: type[nn.RNNBase], gates: int, batch_first: bool
) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(4, 5, num_layers=2, bidirectional=True, batch_first=batch_first)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            output, _ = self.rnn(images[:, 0])
            assert output.shape == (1, 6, 10)
            return output

    per_token = 2 * gates * 5 * (4 + 5) + 2 * gates * 5 * (10 + 5)
    assert count_macs(Rows(), (6, 4), in_chans=1) == 6 * per_token


def test_attention_and_convolutions_count_too() -> None:
    assert count_macs(timm.create_model("deit_small_patch16_224")) == pytest.approx(4.6e9, rel=0.01)
    assert count_macs(nn.Conv2d(3, 8, 3, padding=1), 10) == 100 * 3 * 8 * 9


def test_counting_leaves_the_model_alone() -> None:
    model = create_model("sequencer2d_n", num_classes=7).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    at_112, at_224 = count_macs(model, 112), count_macs(model, (224, 224))
    assert at_112 == pytest.approx(at_224 / 4, rel=0.01)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model(torch.rand(2, 3, 56, 56)).shape == (2, 7)


def test_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model.append(model[0])
    model[1].weight.requires_grad_(False)
    assert count_parameters(model) == 16 + 8
    assert count_parameters(model, trainable_only=True) == 16 + 4
    assert count_parameters(on_meta("sequencer2d_s")) == 27_651_688
