"""A block whose layers are changed, hooked or observed runs them one by one."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.overrides import BaseTorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tests.nn.eager.blocks import is_one_node, layer_by_layer, make_block, tokens


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def hook_the_norm(block):
    block.norm1.register_forward_hook(lambda module, inputs, output: 2 * output)


def hook_before_the_mixer(block):
    block.rnn_tokens.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def hook_a_recurrent_layer(block):
    block.rnn_tokens.rnn_v.register_forward_hook(lambda *_: None)


def replace_a_forward(block):
    block.mlp_channels.fc1.forward = lambda x: (
        2 * nn.functional.linear(x, block.mlp_channels.fc1.weight, block.mlp_channels.fc1.bias)
    )


def replace_the_activation(block):
    block.mlp_channels.act = nn.ReLU()


def approximate_the_activation(block):
    block.mlp_channels.act = nn.GELU("tanh")


def parametrize_a_weight(block):
    nn.utils.parametrize.register_parametrization(block.mlp_channels.fc2, "weight", Doubled())


def norm_a_weight(block):
    parametrizations.weight_norm(block.rnn_tokens.rnn_h, "weight_hh_l0")


def prune_a_weight(block):
    prune.l1_unstructured(block.rnn_tokens.rnn_h, "weight_ih_l0", 0.5)


def drop_values(block):
    block.mlp_channels.drop.p = 0.999


def take_off_a_bias(block):
    block.mlp_channels.fc2.bias = None


def replace_the_norm(block):
    block.norm2 = nn.Identity()


def recompute_gates(block):
    block.rnn_tokens.gates = "recomputed"


CHANGES = [
    hook_the_norm, hook_before_the_mixer, hook_a_recurrent_layer, replace_a_forward, replace_the_activation,
    approximate_the_activation, parametrize_a_weight, norm_a_weight, prune_a_weight, drop_values, take_off_a_bias,
    replace_the_norm, recompute_gates,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_layers_that_are_more_than_their_class_says_run_one_by_one(device, change):
    block, x = make_block(device).train(), tokens(device)
    assert is_one_node(block(x))
    change(block)
    torch.manual_seed(2)
    out = block(x)
    assert not is_one_node(out)
    with layer_by_layer():
        torch.manual_seed(2)
        assert torch.equal(out, block(x))


def test_hooks_on_all_modules_are_called(device):
    block, seen = make_block(device), []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    with handle if hasattr(handle, "__enter__") else contextlib.nullcontext():
        block(tokens(device))
    handle.remove()
    assert nn.LayerNorm in seen


@pytest.mark.parametrize("options", [{"cell": "gru"}, {"fusion": "add"}, {"implementation": "reference"}], ids=str)
def test_other_blocks_run_layer_by_layer(device, options):
    assert not is_one_node(make_block(device, **options)(tokens(device)))


def test_tokens_of_another_dtype_than_the_computations_run_layer_by_layer(device):
    block, x = make_block(device), tokens(device)
    with torch.autocast(device.type, torch.float16):
        assert not is_one_node(block(x))
        assert is_one_node(block(x.half()))


def test_a_default_device_changes_nothing(device):
    block, x = make_block(device), tokens(device)
    with torch.device(device):
        assert is_one_node(block(x))
        with BaseTorchFunctionMode():
            assert not is_one_node(block(x))


def test_modes_and_transforms_see_the_layers(device):
    block, x = make_block(device), tokens(device)
    with FlopCounterMode(display=False) as counter:
        block(x)
    assert counter.get_total_flops() > 0
    exported = torch.export.export(block, (x,))
    assert not any("Block" in str(node.target) for node in exported.graph.nodes)
