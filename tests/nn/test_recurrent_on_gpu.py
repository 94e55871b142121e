"""What only a GPU shows of the drop-in layers: repeated runs, offsets beyond 2^31, streams, graphs, another GPU."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from tests.nn.layer_pairs import NAMES, pair, solve, states, tensors, worst

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_ten_runs_are_equal_to_the_bit(name, packed):
    _, layer = (module.cuda() for module in pair(name, 33, 96, 2, bidirectional=True, implementation="triton"))
    x = torch.randn(19, 33, 33, device="cuda", requires_grad=True)
    before, hx = states(name, layer, 33, torch.float32, "cuda")
    lengths = torch.randint(1, 20, (33,))
    runs = []
    for _ in range(10):
        given = pack_padded_sequence(x, lengths, enforce_sorted=False) if packed else x
        runs.append(solve(layer, given, hx, [x, *before]))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


def test_offsets_beyond_two_to_the_31st():
    """The gates of the last sequences lie there: they give what they give alone."""
    _, layer = (
        module.cuda().bfloat16() for module in pair("LSTM", 16, 64, bidirectional=True, implementation="triton")
    )
    sequences, steps = 72_000, 64
    assert sequences * steps * 2 * 4 * 64 > 2**31
    x = torch.randn(steps, sequences, 16, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        out, (h, c) = layer(x)
        alone, (h_alone, c_alone) = layer(x[:, -512:].contiguous())
    pairs = ((out[:, -512:], alone), (h[:, -512:], h_alone), (c[:, -512:], c_alone))
    assert max(worst([given], [expected]) for given, expected in pairs) < 1e-2
    assert h_alone.float().std() > 1e-2


def test_gradients_beyond_two_to_the_31st():
    _, layer = (
        module.cuda().bfloat16() for module in pair("LSTM", 16, 64, bidirectional=True, implementation="triton")
    )
    x = torch.randn(64, 72_000, 16, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    tail = x.detach()[:, -512:].clone().requires_grad_()
    for leaf in (x, tail):
        out, (_, c) = layer(leaf)
        (out[:, -512:].float().sum() + c[:, -512:].float().sum()).backward()
    assert worst([x.grad[:, -512:]], [tail.grad]) < 2e-2


@pytest.mark.parametrize("name", NAMES)
def test_in_a_cuda_graph_it_sees_new_inputs(name):
    theirs, layer = (module.cuda() for module in pair(name, 24, 64, bidirectional=True, implementation="triton"))
    x = torch.randn(9, 7, 24, device="cuda")
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            layer(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = tensors(layer(x))
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert worst(results, tensors(theirs(x))) < 2e-3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_on_the_second_gpu_while_the_first_is_current():
    theirs, layer = (module.to("cuda:1") for module in pair("LSTM", 24, 64, implementation="triton"))
    x = torch.randn(9, 7, 24, device="cuda:1", requires_grad=True)
    assert torch.cuda.current_device() == 0
    assert worst(solve(layer, x, None, [x]), solve(theirs, x, None, [x])) < 2e-3


@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_as_one_graph_with_the_kernels(name):
    theirs, layer = (module.cuda() for module in pair(name, 24, 64, bidirectional=True, implementation="triton"))
    x = torch.randn(9, 7, 24, device="cuda", requires_grad=True)
    before, hx = states(name, layer, 7, torch.float32, "cuda")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    results = tensors(compiled(x, hx))
    expected = tensors(theirs(x, hx))
    assert worst(results, expected) < 2e-3
    for leaf in (x, *before):
        (ours,), (plain,) = (
            torch.autograd.grad(sum(r.sum() for r in out), leaf, retain_graph=True) for out in (results, expected)
        )
        assert worst([ours], [plain]) < 5e-3
