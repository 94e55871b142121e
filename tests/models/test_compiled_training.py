"""A model whose blocks are compiled, each kind once, trains as it did."""

import copy
import functools
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch._dynamo.utils import counters
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sequencer2d import create_model
from sequencer2d.models.compiled_training import FORMS, compile_blocks, compile_for_training
from sequencer2d.nn.blocks import SequencerBlock

# The compiler looks at `.grad` of the tensors that it is given.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@pytest.fixture(autouse=True)
def without_code(monkeypatch):
    """Everything of the compiler but the code that it writes, which takes longest."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()


FOUR_STAGES = {"dims": (16, 32, 32, 32), "hidden_dims": (4, 8, 8, 8), "depths": (3, 1, 1, 2)}
TWO_BLOCKS = {"dims": (16,), "hidden_dims": (4,), "depths": (2,), "patch_sizes": (7,)}


def make_model(sizes=FOUR_STAGES):
    torch.manual_seed(0)
    model = create_model("sequencer2d_s", num_classes=10, drop_path_rate=0.3, **sizes).train()
    nn.init.normal_(model.head.fc.weight, std=0.5)
    return model


def solve(model, batch=4, height=28, width=28):
    torch.manual_seed(1)
    model.zero_grad()
    images = torch.randn(batch, 3, height, width)
    loss = nn.functional.cross_entropy(model(images), torch.arange(batch) % 10)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def test_loss_and_gradients_are_those_of_the_model_stochastic_depth_included():
    model = make_model()
    expected = solve(model)
    assert compile_blocks(model) is True
    for ours, value in zip(solve(model), expected, strict=True):
        torch.testing.assert_close(ours, value, rtol=1e-4, atol=1e-5)


def test_blocks_that_differ_in_their_rates_share_code_and_shapes_soon_cost_nothing():
    model = make_model()
    compile_blocks(model)
    before = counters["stats"]["unique_graphs"]
    solve(model)
    assert counters["stats"]["unique_graphs"] - before == 3  # two widths; the first block drops nothing
    solve(model, batch=3)
    solve(model, height=56, width=42)
    known = counters["stats"]["unique_graphs"]
    for batch, height, width in ((5, 28, 28), (2, 70, 28), (7, 42, 84), (4, 28, 28)):
        solve(model, batch, height, width)
    assert counters["stats"]["unique_graphs"] == known


@pytest.mark.parametrize("form", FORMS)
def test_last_batches_growing_images_and_several_scales_soon_compile_nothing(form):
    """A last batch of another size, then progressive resizing, then images of several scales in turns."""
    model = make_model()
    assert compile_for_training(model, form) == form
    last_batches = [(4, 28), (4, 28), (3, 28), (4, 28), (3, 28)]
    growing = [(4, side) for side in (28, 42, 56, 70, 84)]
    scales = [(batch, side) for batch in (4, 2) for side in (28, 56, 42, 84)]
    counts = []
    for batch, side in (*last_batches, *growing, *scales):
        solve(model, batch, side, side)
        counts.append(counters["stats"]["unique_graphs"])
    assert counts[4] == counts[2], "the second batch was compiled for at once"
    assert counts[-1] == counts[6], "and so was the second image size"
    assert 1 <= counts[-1] <= 4 * counts[0]


def test_names_copies_and_hooks_stay():
    model = make_model()
    names = list(model.state_dict())
    compile_blocks(model)
    assert list(model.state_dict()) == names
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [block.compiled for block in other.stages[0].blocks] == [None] * 3


def hook_a_block(block):
    block.register_forward_hook(lambda module, inputs, output: 2 * output)


def hook_before_a_block(block):
    block.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))


def hook_a_blocks_gradient(block):
    block.register_full_backward_hook(lambda module, inputs, outputs: (3 * inputs[0],))


def hook_stochastic_depth(block):
    block.drop_path1.register_forward_hook(lambda module, inputs, output: 2 * output)


def replace_stochastic_depth(block):
    block.drop_path2 = nn.Dropout(0.5)


def give_a_forward(block):
    forward = block.forward
    block.forward = lambda x: 2 * forward(x)


def take_another_class(block):
    """As FSDP does."""
    block.__class__ = type("ShardedBlock", (SequencerBlock,), {})


def norm_a_weight(block):
    block.mlp_channels.fc1 = nn.utils.parametrizations.weight_norm(block.mlp_channels.fc1)


CHANGES = [
    hook_a_block, hook_before_a_block, hook_a_blocks_gradient, hook_stochastic_depth, replace_stochastic_depth,
    give_a_forward, take_another_class, norm_a_weight,
]  # fmt: skip


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_done_to_a_block_before_or_after_counts(change, is_first):
    plain, compiled = make_model(TWO_BLOCKS), make_model(TWO_BLOCKS)
    before = solve(plain)
    for model in (plain, compiled):
        if model is compiled and not is_first:
            compile_blocks(model)
            solve(model)
        change(model.stages[0].blocks[0])
    if is_first:
        compile_blocks(compiled)
    expected = solve(plain)
    if change not in (norm_a_weight, take_another_class):
        assert any(
            value.shape != old.shape or not torch.allclose(value, old)
            for value, old in zip(expected, before, strict=False)
        )
    for found, value in zip(solve(compiled), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_sharded_first", [True, False])
def test_fsdp_around_blocks_works_with_their_code(is_sharded_first):
    expected, model = solve(make_model(TWO_BLOCKS)), make_model(TWO_BLOCKS)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        if not is_sharded_first:
            compile_blocks(model)
        for block in model.stages[0].blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        if is_sharded_first:
            assert compile_blocks(model)
        loss, *gradients = solve(model)
        found = [loss, *(gradient.full_tensor() for gradient in gradients)]
        assert counters["stats"]["unique_graphs"] > 0
    finally:
        dist.destroy_process_group()
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-4, atol=1e-5)


def test_transforms_see_the_layers():
    model = make_model(TWO_BLOCKS).eval()
    images = torch.randn(2, 1, 3, 28, 28)
    expected = torch.func.vmap(model)(images)
    compile_blocks(model)
    model(images[0])
    torch.testing.assert_close(torch.func.vmap(model)(images), expected)


def test_other_models_have_no_such_blocks():
    model = nn.Sequential(nn.Linear(2, 2))
    assert compile_blocks(model) is False
    assert compile_for_training(model, True) == "whole"
    assert torch.isfinite(model(torch.ones(1, 2))).all()
