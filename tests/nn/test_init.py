import math

import torch
from torch import nn

from sequencer2d import create_model
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


def test_convolutions_are_lecun_normal_with_zero_bias():
    layer = nn.Conv2d(3, 400, 7)
    init_convolution(layer)
    assert math.isclose(layer.weight.std().item(), math.sqrt(1 / 147), rel_tol=0.02)
    assert not layer.bias.any()


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
