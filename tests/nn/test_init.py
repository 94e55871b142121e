import math

import pytest
import torch
from timm.layers import lecun_normal_
from torch import nn

from sequencer2d import create_model
from sequencer2d.errors import ConfigError
from sequencer2d.models import describe_model
from sequencer2d.nn.blocks import ClassifierHead, Mlp
from sequencer2d.nn.embed import PositionEmbedding
from sequencer2d.nn.init import init_convolution, init_weights


def test_linear_layers_are_xavier_uniform_with_zero_bias():
    layer = nn.Sequential(nn.Linear(300, 500))
    init_weights(layer)
    bound = math.sqrt(6 / 800)
    assert layer[0].weight.abs().max() <= bound
    assert math.isclose(layer[0].weight.std().item(), bound / math.sqrt(3), rel_tol=0.02)
    assert not layer[0].bias.any()


# The authors' models under timm 0.5.4; the stem of VSequencer is 14×14, the others are of S.
PAPER_STD = {
    ("sequencer2d_s", "stem.proj"): 0.0936,
    ("sequencer2d_s", "stages.1.downsample.down"): 0.0411,
    ("sequencer2d_s", "stages.2.downsample.down"): 0.0579,
    ("vsequencer_s", "stem.proj"): 0.0469,
}


@pytest.mark.parametrize("variant, name", PAPER_STD)
def test_convolutions_start_as_those_of_the_papers_runs(variant, name):
    small = {"depths": (1, 1, 1, 1), "num_classes": 0}
    stds = {}
    for kind in ("paper", "timm"):
        torch.manual_seed(0)
        layer = create_model(variant, conv_init=kind, **small).get_submodule(name)
        stds[kind] = layer.weight.std().item()
        cut = 2 / (0.8796 * math.sqrt(layer.weight[0].numel()))
        assert (layer.weight.abs().max().item() > 1.5 * cut) == (kind == "paper"), "nothing is cut in the paper's"
        assert not layer.bias.any()
    assert stds["paper"] == pytest.approx(PAPER_STD[variant, name], rel=0.015)
    assert stds["timm"] == pytest.approx(PAPER_STD[variant, name] * 0.8796, rel=0.015)


def test_todays_timm_is_an_option():
    layer, timms = nn.Conv2d(3, 400, 7), torch.empty(400, 3, 7, 7)
    torch.manual_seed(3)
    init_convolution(layer, "timm")
    lecun_normal_(timms)
    ours, timms = layer.weight.detach().flatten(), timms.flatten()
    levels = torch.linspace(0, 1, 21)
    torch.testing.assert_close(ours.quantile(levels), timms.quantile(levels), rtol=0, atol=0.003)
    with pytest.raises(ConfigError, match="conv_init='lecun': expected one of 'paper', 'timm'"):
        create_model("sequencer2d_n", conv_init="lecun")


def test_the_first_weights_leave_no_trace_in_what_a_checkpoint_says():
    said = [describe_model(create_model("sequencer2d_n", conv_init=kind)) for kind in ("paper", "timm")]
    assert said[0] == said[1]


def test_mlp_biases_are_tiny_but_not_zero():
    mlp = Mlp(64, 192)
    init_weights(mlp)
    for bias in (mlp.fc1.bias, mlp.fc2.bias):
        assert 0 < bias.abs().max() < 1e-5


def test_classifier_starts_at_zero():
    head = ClassifierHead(8, 3)
    init_weights(head)
    assert not head.fc.weight.any()
    assert not head.fc.bias.any()


def test_position_embedding_has_std_0_02():
    embedding = PositionEmbedding(16, 16, 64)
    init_weights(embedding)
    assert math.isclose(embedding.weight.std().item(), 0.02, rel_tol=0.05)


def test_recurrent_parameters_stay_uniform_within_one_over_root_d():
    model = create_model("sequencer2d_n", num_classes=0)
    for name, parameter in model.named_parameters():
        if "rnn_v" in name:
            bound = 1 / math.sqrt(parameter.shape[0] // 4)
            assert parameter.abs().max() <= bound
            assert math.isclose(parameter.std().item(), bound / math.sqrt(3), rel_tol=0.3)


def test_initial_values_depend_on_torch_seed_alone():
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(create_model("sequencer2d_n", num_classes=2).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
