"""A model whose blocks are compiled, each kind once, trains as it did."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from sequencer2d import create_model
from sequencer2d.models.compiled_training import FORMS, compile_blocks, compile_for_training

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


def make_model():
    torch.manual_seed(0)
    model = create_model(
        "sequencer2d_s", num_classes=10, dims=(16, 32, 32, 32), hidden_dims=(4, 8, 8, 8), depths=(3, 1, 1, 2),
        drop_path_rate=0.3,
    ).train()  # fmt: skip
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
    assert compile_blocks(model)
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
    assert all(block._compiled_call_impl is None for block in copy.deepcopy(model).stages[0].blocks)


def test_other_models_have_no_such_blocks():
    model = nn.Sequential(nn.Linear(2, 2))
    assert not compile_blocks(model)
    assert compile_for_training(model, True) == "whole"
    assert torch.isfinite(model(torch.ones(1, 2))).all()
