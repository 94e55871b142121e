"""The drop-in layers go where torch.nn's go: copies, files, autocast, compilers, export, checkpointing and DDP."""

import copy
import io

import pytest
import torch
from torch import nn

import sequencer2d.nn as ours
from sequencer2d.errors import InputError
from tests.nn.layer_pairs import NAMES, pair, solve, states, tensors, worst


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
def test_torch_jit_script_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"torch\.jit\.script cannot compile this layer"):
        torch.jit.script(nn.Sequential(ours.GRU(5, 7)))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_copied_pickled_and_saved(name):
    _, layer = pair(name, 5, 7, implementation="reference")
    x = torch.randn(4, 3, 5)
    expected = layer(x)[0]
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for again in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(again(x)[0], expected)
        assert again.implementation == "reference"


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_results_have_autocasts_dtype(name):
    _, layer = pair(name, 5, 7, bidirectional=True, implementation="reference")
    x = torch.randn(4, 3, 5)
    expected = tensors(layer(x))
    with torch.autocast("cpu", torch.bfloat16):
        results = tensors(layer(x))
    assert {r.dtype for r in results} == {torch.bfloat16}
    assert worst(results, expected) < 0.02


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_states", [False, True])
def test_it_compiles_as_one_graph_and_trains(name, with_states):
    theirs, layer = pair(name, 5, 7, 2, bidirectional=True, batch_first=True)
    x = torch.randn(3, 4, 5, requires_grad=True)
    before, hx = states(name, layer, 3, torch.float32)
    extra = [x, *(before if with_states else [])]
    hx = hx if with_states else None
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected = solve(theirs, x, hx, extra)
    results = tensors(compiled(x, hx))
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(r.shape, generator=generator) for r in results]
    loss = sum((r * w).sum() for r, w in zip(results, weights, strict=True))
    solved = results + list(torch.autograd.grad(loss, [*extra, *layer.parameters()]))
    assert worst(solved, expected) < 1e-5


def test_it_is_exported_with_any_number_of_sequences():
    theirs, layer = pair("LSTM", 5, 7, batch_first=True)
    dimension = torch.export.Dim("sequences", min=2, max=64)
    program = torch.export.export(layer.eval(), (torch.randn(3, 4, 5),), dynamic_shapes=({0: dimension},))
    x = torch.randn(9, 4, 5)
    torch.testing.assert_close(tensors(program.module()(x)), tensors(theirs(x)))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_gives_the_same_gradients(use_reentrant):
    _, layer = pair("GRU", 5, 7, implementation="reference")
    x = torch.randn(4, 3, 5, requires_grad=True)
    expected = torch.autograd.grad(layer(x)[0].sum(), x)[0]
    out = torch.utils.checkpoint.checkpoint(lambda x: layer(x)[0], x, use_reentrant=use_reentrant)
    out.sum().backward()
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_it_trains_in_ddp(tmp_path, implementation):
    """In one process: gradients arrive in DDP's buckets, which its hooks on the parameters fill."""
    theirs, layer = pair("LSTM", 5, 7, bidirectional=True, implementation=implementation)
    x = torch.randn(4, 3, 5)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(layer)
        for _ in range(2):
            wrapped.zero_grad()
            wrapped(x)[0].square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    theirs(x)[0].square().sum().backward()
    for ours_, expected in zip(layer.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_.grad, expected.grad)
