"""Blocks without gradients share the memory for copies of weights, and ask little of the host."""

import concurrent.futures
import cProfile

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sequencer2d.nn.blocks import SequencerBlock
from sequencer2d.ops import block_weights
from tests.nn.eager.blocks import expected, make_block, tokens

prepared = pytest.importorskip("sequencer2d.ops.kernels.prepared", reason="Triton is not installed")
# Of a block without gradients, with some room for other versions. timm's block of ConvNeXt is 12 and 94.
MOST_OPERATORS, MOST_CALLS = 20, 190


@pytest.fixture
def rooms(monkeypatch):
    kept = block_weights._Rooms()
    monkeypatch.setattr(block_weights, "_ROOMS", kept)
    return kept.by_key


def test_calls_without_gradients_share_memory_and_nothing_else(device, rooms):
    first, second, wider = make_block(device), make_block(device), SequencerBlock(32, 16, 2.0).to(device)
    wider.rnn_tokens.set_implementation("triton")
    with torch.no_grad():
        for value in second.parameters():
            value.add_(0.1)
    x = tokens(device)
    rights = [expected(block, x) for block in (first, second, wider)]
    with torch.inference_mode():
        outputs = [first(x)]
    with torch.no_grad():
        outputs += [second(x), wider(x)]
        assert len(rooms) == 2
        again = [first(x), second(x)]
        with torch.inference_mode():
            again.append(wider(x))
        for found, right in zip([*outputs, *again], rights * 2, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        second.mlp_channels.fc1.weight.data.mul_(0.5)  # behind autograd's back
        second.rnn_tokens.rnn_v.weight_hh_l0.data.mul_(0.5)
        torch.testing.assert_close(second(x), expected(second, x), rtol=1e-4, atol=1e-5)


def test_a_copy_that_backward_reads_is_not_overwritten(device, rooms):
    block, other, x = make_block(device), make_block(device), tokens(device)
    with torch.no_grad():
        other(x)
        for value in other.parameters():
            value.zero_()
    out = block(x)
    with torch.no_grad():
        other(x)
    found = torch.autograd.grad(out.square().sum(), list(block.parameters()))
    right = torch.autograd.grad(block(x).square().sum(), list(block.parameters()))
    assert all(torch.equal(*pair) for pair in zip(found, right, strict=True))
    assert len(rooms) == 1


def test_threads_copy_to_memory_of_their_own(device, rooms):
    with torch.no_grad(), concurrent.futures.ThreadPoolExecutor(1) as pool:
        block, x = make_block(device), tokens(device)
        block(x)
        pool.submit(lambda: make_block(device)(tokens(device).detach())).result()
        assert pool.submit(lambda: len(block_weights._ROOMS.by_key)).result() == 0, "gradients are on there"
        pool.submit(torch.no_grad()(lambda: block(x))).result()
        theirs = pool.submit(lambda: next(iter(block_weights._ROOMS.by_key.values()))).result()
    assert theirs.packed[0].data_ptr() != next(iter(rooms.values())).packed[0].data_ptr()


@pytest.mark.gpu
def test_on_a_gpu_streams_and_captures_have_memory_of_their_own(rooms):
    block, other, x = make_block("cuda"), make_block("cuda"), tokens("cuda")
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.5)
        rights = [expected(block, x), expected(other, x)]
        block(x)
        graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            found = block(x)
        torch.cuda.current_stream().wait_stream(side)
        assert len(rooms) == 2
        torch.testing.assert_close(found, rights[0], rtol=1e-4, atol=1e-5)
        with torch.cuda.graph(graph):
            captured = block(x)
        assert len(rooms) == 2
        for _ in range(3):
            graph.replay()
            torch.testing.assert_close(other(x), rights[1], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(captured, rights[0], rtol=1e-4, atol=1e-5)


def test_memory_for_copies_is_bounded(device, rooms, monkeypatch):
    monkeypatch.setattr(block_weights, "MAX_ROOMS", 2)
    with torch.no_grad():
        for ratio in (1.0, 2.0, 3.0, 1.0):
            block = SequencerBlock(32, 16, ratio, implementation="triton").to(device)
            torch.testing.assert_close(block(tokens(device)), expected(block, tokens(device)), rtol=1e-4, atol=1e-5)
    assert len(rooms) == 2


def test_the_host_does_little_for_a_block_without_gradients(device, rooms, monkeypatch):
    """Operators that PyTorch is called for, and calls of Python functions; launches do nothing here."""
    monkeypatch.setattr(prepared, "repeat", lambda *_: True)
    block, x = make_block(device, torch.float32).eval(), tokens(device).half()
    with torch.no_grad(), torch.autocast(device.type, torch.float16):
        block(x)
        with profile(activities=[ProfilerActivity.CPU]) as operators:
            block(x)
        calls = cProfile.Profile()
        calls.runcall(block, x)
    assert sum(event.cpu_parent is None for event in operators.events()) <= MOST_OPERATORS
    assert sum(row.callcount for row in calls.getstats()) <= MOST_CALLS
