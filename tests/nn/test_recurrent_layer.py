"""In eager PyTorch a layer is one autograd node, which computes what the operators one by one do."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sequencer2d.nn import recurrent
from sequencer2d.ops import devices, scan_kernels
from tests.nn.layer_pairs import NAMES, pair, solve, tensors, worst


@pytest.fixture
def device(monkeypatch):
    """A GPU, or Triton's interpreter."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if torch.cuda.is_available():
        yield "cuda"
        return
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    devices._ask.cache_clear()
    yield "cpu"
    devices._ask.cache_clear()


def is_one_node(out):
    """Whether the node of a layer made `out`; a time-major sequence is a view of what it returned."""
    node = out.grad_fn
    while "View" in type(node).__name__ or "Squeeze" in type(node).__name__:
        ((node, _),) = node.next_functions
    return type(node).__name__ == "RecurrentLayerBackward"


@pytest.fixture
def both_ways(monkeypatch):
    """Call a function as it is, and with all operators one by one."""

    def call(function):
        found = function()
        with monkeypatch.context() as patch:
            patch.setattr(recurrent, "takes", lambda *_: False)
            return found, function()

    return call


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{}, {"bias": False, "batch_first": True}, {"bidirectional": True}], ids=str)
def test_output_states_and_gradients_are_those_of_the_operators(device, both_ways, name, options):
    layer = pair(name, 5, 20, 2, implementation="triton", **options)[1].to(device)
    x = torch.randn(3, 4, 5, device=device, requires_grad=True)
    found, expected = both_ways(lambda: solve(layer, x, None, [x]))
    assert worst(found, expected) < 1e-6
    with torch.no_grad():
        inferred = tensors(layer(x))
    assert worst(inferred, found[: len(inferred)]) < 1e-6
    assert is_one_node(layer(x)[0])


@pytest.mark.parametrize("options", [{}, {"bias": False, "batch_first": True}, {"bidirectional": True}], ids=str)
def test_padded_hidden_units_change_nothing(device, both_ways, monkeypatch, options):
    layer = pair("LSTM", 5, 20, 2, implementation="triton", **options)[1].to(device)
    x = torch.randn(3, 4, 5, device=device, requires_grad=True)
    with monkeypatch.context() as patch:
        patch.setattr(scan_kernels, "padded_hidden", lambda *_: 24)
        padded = both_ways(lambda: solve(layer, x, None, [x]))
        assert is_one_node(layer(x)[0])
    expected = solve(layer, x, None, [x])
    for found in padded:
        assert worst(found, expected) < 1e-6
        assert all(state.is_contiguous() for state in found[1:3])


@pytest.mark.parametrize("name", NAMES)
def test_autocast_and_its_gradients(device, both_ways, name):
    layer = pair(name, 5, 20, implementation="triton", bidirectional=True)[1].to(device)
    x = torch.randn(3, 4, 5, device=device, requires_grad=True)

    def run():
        with torch.autocast(device, torch.float16):
            results = tensors(layer(x))
        grads = torch.autograd.grad(sum(r.float().square().sum() for r in results), [x, *layer.parameters()])
        assert {r.dtype for r in results} == {torch.float16}
        assert {grad.dtype for grad in grads} == {torch.float32}
        return [*results, *grads]

    assert worst(*both_ways(run)) < 2e-3


def test_the_gradient_of_each_result_alone(device, both_ways):
    layer = pair("LSTM", 5, 20, implementation="triton", bidirectional=True)[1].to(device)
    x = torch.randn(3, 4, 5, device=device, requires_grad=True)
    for place in range(3):

        def run(place=place):
            return torch.autograd.grad(tensors(layer(x))[place].square().sum(), [x, *layer.parameters()])

        assert worst(*both_ways(run)) < 1e-6


def test_frozen_weights_and_inputs_get_no_gradient(device):
    layer = pair("GRU", 5, 20, implementation="triton")[1].to(device)
    layer.weight_hh_l0.requires_grad_(False)
    out = layer(torch.randn(3, 4, 5, device=device))[0]
    assert is_one_node(out)
    out.sum().backward()
    assert layer.weight_hh_l0.grad is None
    assert layer.bias_ih_l0.grad.data_ptr() != layer.bias_hh_l0.grad.data_ptr()


def test_a_weight_that_changes_before_backward_is_refused_where_it_is_not_copied(device):
    layer = pair("LSTM", 5, 20, implementation="triton")[1].to(device)
    out = layer(torch.randn(3, 4, 5, device=device))[0]
    with torch.no_grad():
        layer.weight_hh_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_modes_see_the_operators(device):
    layer = pair("LSTM", 5, 20, implementation="triton")[1].to(device)
    with FlopCounterMode(display=False):
        assert not is_one_node(layer(torch.randn(3, 4, 5, device=device))[0])
