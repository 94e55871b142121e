"""In eager PyTorch a block is one autograd node, which computes what its layers compute."""

import contextlib
import copy

import pytest
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sequencer2d.errors import ImplementationError
from sequencer2d.models import fuse
from sequencer2d.ops.precision import tf32
from tests.nn.eager.blocks import error, is_one_node, layer_by_layer, make_block, solve, tokens

DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("options", [{}, {"axes": "flatten"}, {"cell": "rnn", "bidirectional": False}], ids=str)
@pytest.mark.parametrize("dtype, autocast", [*((d, None) for d in DTYPES), *((torch.float32, d) for d in DTYPES[1:])])
def test_the_node_is_as_exact_as_the_layers(device, dtype, autocast, options):
    block, x = make_block(device, dtype, **options), tokens(device, autocast or dtype)
    exact = copy.deepcopy(block).double()
    exact.rnn_tokens.set_implementation("reference")
    expected = solve(exact, x.double())
    found = solve(block, x, autocast)
    with layer_by_layer():
        plain = solve(block, x, autocast)
    assert is_one_node(found[0])
    assert not is_one_node(plain[0])
    rounding = torch.finfo(autocast or dtype).eps
    names = ["out", "x", *(name for name, _ in block.named_parameters())]
    for name, ours, theirs, value in zip(names, found, plain, expected, strict=True):
        assert ours.dtype is theirs.dtype, name
        assert ours.shape == theirs.shape, name
        assert error(ours, value) <= 2 * error(theirs, value) + 0.5 * rounding, name


def test_stochastic_depth_draws_what_the_layers_draw(device):
    block, x = make_block(device, drop_path=0.5).train(), tokens(device)
    found = solve(block, x)
    with layer_by_layer():
        plain = solve(block, x)
    assert is_one_node(found[0])
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["sequencer2d_s"])
def test_a_fused_model_of_timms_runs_as_one_node_a_block(device, name):
    torch.manual_seed(0)
    model = timm.create_model(name, layers=(1, 1, 1, 1), embed_dims=(32, 32, 32, 32), hidden_sizes=(16,) * 4)
    model = model.to(device).train()
    nn.init.normal_(model.head.fc.weight, 0, 0.02)
    images = torch.randn(2, 3, 28, 28, device=device)
    state = list(model.state_dict())
    fuse(model, implementation="triton")
    block = model.stages[0].blocks[0]
    assert isinstance(block, timm.models.sequencer.Sequencer2dBlock)
    assert is_one_node(block(torch.randn(2, 4, 4, 32, device=device)))
    assert list(model.state_dict()) == state
    # A convolution in TF32 would round the last bit of its input to a thousandth.
    with tf32(False):
        logits = model(images)
    with tf32(False), FlopCounterMode(display=False):  # it makes the layers run
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)


def test_weights_that_change_behind_autograd_are_seen(device):
    """`Tensor.data` has a version of its own: nothing may be kept from one call to the next."""
    block, x = make_block(device), tokens(device)
    block(x)
    for parameter in block.parameters():
        parameter.data.mul_(0.5)
    changed = block(x)
    with layer_by_layer():
        torch.testing.assert_close(changed, block(x), rtol=1e-4, atol=1e-5)


def test_gradients_share_no_values(device):
    block, x = make_block(device), tokens(device)
    block(x).sum().backward()
    before = [parameter.grad.clone() for parameter in block.parameters()]
    for parameter, value in zip(block.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, value)
        parameter.grad.add_(1)


@pytest.mark.parametrize("frozen", ["rnn_tokens.rnn_v.bias_hh_l0", "norm1.weight", "mlp_channels.fc2.weight", "x"])
def test_what_needs_no_gradient_gets_none(device, frozen):
    block, x = make_block(device), tokens(device).requires_grad_(frozen != "x")
    if frozen != "x":
        block.get_parameter(frozen).requires_grad_(False)
    out = block(x)
    assert is_one_node(out)
    out.sum().backward()
    assert (x.grad is None) == (frozen == "x")
    assert all((parameter.grad is None) == (name == frozen) for name, parameter in block.named_parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_output_is_the_same(device, context):
    block, x = make_block(device), tokens(device)
    with context():
        out = block(x)
    assert torch.equal(out, block(x).detach())


@pytest.mark.parametrize("autocast", [None, torch.float16], ids=str)
def test_the_node_keeps_less_for_backward_than_the_layers(device, autocast):
    block, x = make_block(device), tokens(device, autocast or torch.float32).requires_grad_()
    kept = {}

    def count(tensor):
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    def activations():
        kept.clear()
        computing = torch.autocast(device.type, autocast) if autocast else contextlib.nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor), computing:
            out = block(x)
        # Weights and their copies are not among them.
        return sum(value.nbytes for value in kept.values() if value.shape[0] in (*x.shape[:1], 60)), out

    node, out = activations()
    assert is_one_node(out)
    with layer_by_layer():
        layers, _ = activations()
    assert node < 0.9 * layers


def test_activations_can_be_computed_again(device):
    block, x = make_block(device, drop_path=0.5).train(), tokens(device)
    expected = solve(block, x)
    x = x.clone().requires_grad_()
    torch.manual_seed(2)
    out = checkpoint(block, x, use_reentrant=False)
    grad = torch.linspace(-1, 1, out.numel(), device=x.device).view(out.shape)
    found = [out, *torch.autograd.grad(out, [x, *block.parameters()], grad)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_backward_can_run_twice(device):
    block, x = make_block(device), tokens(device).requires_grad_()
    out = block(x)
    first = torch.autograd.grad(out.sum(), [x, *block.parameters()], retain_graph=True)
    second = torch.autograd.grad(out.sum(), [x, *block.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_second_derivatives_are_refused(device):
    x = tokens(device).requires_grad_()
    with pytest.raises(ImplementationError, match="no second derivative"):
        torch.autograd.grad(make_block(device)(x).sum(), [x], create_graph=True)


def test_tokens_need_not_be_contiguous(device):
    block, x = make_block(device), tokens(device)
    assert torch.equal(block(x.transpose(1, 2).contiguous().transpose(1, 2)), block(x))
