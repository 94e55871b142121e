import pytest
import torch
from torch.nn import functional as F

from sequencer2d.nn.blocks import ClassifierHead, DropPath, Mlp, SequencerBlock


def test_mlp_is_linear_exact_gelu_linear():
    mlp, x = Mlp(6, 18), torch.randn(2, 3, 4, 6)
    expected = F.linear(F.gelu(F.linear(x, mlp.fc1.weight, mlp.fc1.bias)), mlp.fc2.weight, mlp.fc2.bias)
    torch.testing.assert_close(mlp(x), expected)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    y = DropPath(0.25)(torch.ones(4000, 2, 3, 5))
    per_sample = y.flatten(1)
    assert torch.equal(per_sample.min(1).values, per_sample.max(1).values)
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0.0, 1 / 0.75])
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)


def test_drop_path_is_the_identity_in_eval_mode():
    x = torch.randn(3, 2, 2, 4)
    assert torch.equal(DropPath(0.9).eval()(x), x)


def test_drop_path_at_rate_0_is_the_identity_in_training_too():
    x = torch.randn(3, 2, 2, 4)
    assert DropPath(0.0).train()(x) is x


def test_branches_are_multiplied_by_their_masks():
    block, x = SequencerBlock(8, 2, mlp_ratio=2.5).eval(), torch.randn(2, 3, 5, 8)
    assert block.mlp_channels.fc1.out_features == 20
    first, second = (torch.tensor(values).reshape(2, 1, 1, 1) for values in ([0.0, 2.0], [4.0, 0.5]))
    tokens = x + first * block.rnn_tokens(block.norm1(x))
    expected = tokens + second * block.mlp_channels(block.norm2(tokens))
    torch.testing.assert_close(block.add_branches(x, first, second), expected)
    torch.testing.assert_close(block.add_branches(x, None, None), block(x))


def test_block_adds_the_mixer_and_then_the_mlp():
    torch.manual_seed(0)
    block, x = SequencerBlock(8, 2), torch.randn(2, 3, 5, 8)
    tokens = x + block.rnn_tokens(F.layer_norm(x, (8,), eps=1e-6))
    torch.testing.assert_close(block(x), tokens + block.mlp_channels(F.layer_norm(tokens, (8,), eps=1e-6)))
    assert block.mlp_channels.fc1.out_features == 24


def test_block_passes_its_options_to_the_mixer():
    block = SequencerBlock(8, 4, cell="gru", axes="vertical", fusion="none", implementation="reference")
    assert dict(block.rnn_tokens.rnn_v.named_parameters())["weight_hh_l0_reverse"].shape == (12, 4)
    assert not hasattr(block.rnn_tokens, "rnn_h")


def test_stochastic_depth_drops_both_branches():
    torch.manual_seed(0)
    block, x = SequencerBlock(8, 2, drop_path=0.999999), torch.randn(2, 3, 5, 8)
    assert torch.equal(block.train()(x), x)


@pytest.mark.parametrize("pool, expected", [("avg", 2.5), ("max", 4.0)])
def test_head_pools_the_grid(pool, expected):
    head, x = ClassifierHead(1, 0, pool), torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
    assert head(x).tolist() == [[expected]]


def test_head_without_pooling_classifies_every_token():
    head, x = ClassifierHead(6, 3, ""), torch.randn(2, 4, 5, 6)
    assert head(x).shape == (2, 4, 5, 3)
    assert torch.equal(head(x, pre_logits=True), x)
