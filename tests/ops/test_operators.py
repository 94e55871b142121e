"""Every operator keeps what it promised PyTorch: shapes, dtypes, strides, results that share no memory."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from sequencer2d.ops import CELLS, rnn2d
from tests.ops.problems import make_problem

SCANS = [0, 1, 2, 3]
OPERATORS = torch.ops.sequencer2d


def registered():
    """The names of all operators, from PyTorch's own list."""
    names = (schema.name for schema in torch._C._jit_get_all_schemas())
    return sorted(name.removeprefix("sequencer2d::") for name in names if name.startswith("sequencer2d::"))


def calls(device, cell, dtype):
    """Arguments of each operator of recurrences, once and more."""
    problem = make_problem(device, dtype, batch=1, height=2, width=3, cell=cell)
    x, weight_ih, weight_hh, bias_ih, bias_hh = problem.arguments
    flat, bias = weight_ih.flatten(0, 1), bias_ih.flatten()
    bias_n = bias_hh[:, :16].contiguous() if cell == "gru" else None
    gates = F.linear(x, flat, bias)
    out, cells, activations = OPERATORS.scan(gates, weight_hh, bias_n, SCANS, cell, True)
    activated = activations.dim() == gates.dim()
    kept = activations if activated else gates
    return {
        "scan": [(gates, weight_hh, bias_n, SCANS, cell, keep) for keep in (False, True)],
        "scan_backward": [(problem.grad, kept, weight_hh, bias_n, out, cells, SCANS, cell, activated)],
        "rnn2d_recomputing_backward": [
            (problem.grad, x, flat, b, weight_hh, bias_n, out, SCANS, cell) for b in (bias, None)
        ],
        "rnn2d": [(*problem.arguments, SCANS, cell), (x, weight_ih, weight_hh, None, None, SCANS, cell)],
        "rnn2d_backward": [
            (problem.grad, *problem.arguments, SCANS, cell),
            (problem.grad, x, weight_ih, weight_hh, None, None, SCANS, cell),
        ],
        **sequence_calls(problem, gates, bias_n, cell),
    }


def product_calls(device, dtype):
    """Arguments of the operators that know of no cell."""
    x = torch.randn(1, 2, 3, 16, device=device, dtype=dtype)
    square, vector = torch.randn(16, 16, device=device, dtype=dtype), torch.randn(16, device=device, dtype=dtype)
    return {
        "linear_gelu": [(x, square, vector), (x, square, None)],
        "normed_linear": [(x, vector, square, vector, 1e-6, gelu) for gelu in (False, True)],
        "add_linear_": [(x.clone(), x, square)],
    }


def sequence_calls(problem, gates, bias_n, cell):
    """Arguments of the operators of sequences: the columns of the grid as batch of sequences."""
    _, weight_ih, weight_hh, bias_ih, bias_hh = (argument[:2] for argument in problem.arguments)
    scans, x = [0, 1], problem.arguments[0][0]
    gates, grad = (value[0].chunk(2, dim=-1)[0].contiguous() for value in (gates, problem.grad))
    bias_n = None if bias_n is None else bias_n[:2].contiguous()
    first = grad.new_ones(2, 2, 16) / 2
    kept, kept_first = (OPERATORS.sequence_scan(gates, weight_hh, bias_n, f, scans, cell, True) for f in (None, first))
    activated = kept[2].dim() == gates.dim()
    last = None if cell != "lstm" else first
    states = (first, last)
    return {
        "sequence_scan": [(gates, weight_hh, bias_n, f, scans, cell, save) for f in (None, first) for save in (0, 1)],
        "sequence_scan_backward": [
            (
                grad, last, kept[2] if activated else gates, weight_hh, bias_n, None, *kept[:2], scans, cell, activated,
            ),
            (grad, None, gates, weight_hh, bias_n, first, *kept_first[:2], scans, cell, False),
        ],
        "rnn_layer": [
            (x, weight_ih, weight_hh, bias_ih, bias_hh, *states, cell, True),
            (x, weight_ih, weight_hh, None, None, *states, cell, True),
        ],
        "rnn_layer_backward": [
            (grad, first, last, x, weight_ih, weight_hh, bias_ih, bias_hh, *states, cell, True),
        ],
    }  # fmt: skip


ALL = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.fixture(params=["kernels", "references"])
def checks(request, device, monkeypatch):
    """PyTorch's checks. The last one traces graphs in which kernels and references are one node: once is enough.

    It takes most of the time in the interpreter, so there the references alone get it.
    """
    if request.param == "kernels":
        return ALL if device.type == "cuda" else ALL[:-1]
    if device.type == "cuda":
        pytest.skip("the references run on a CPU")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    return ALL


@pytest.mark.parametrize(
    "dtype, cell",
    # In 16 bits the plain RNN has nothing that is neither the LSTM's nor the GRU's.
    [*((torch.float32, cell) for cell in ("lstm", "gru", "rnn")), (torch.float16, "lstm"), (torch.float16, "gru")],
    ids=str,
)
def test_opcheck_of_every_operator_of_recurrences(device, cell, dtype, checks):
    check(calls(device, cell, dtype), checks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_opcheck_of_every_operator_of_products(device, dtype, checks):
    check(product_calls(device, dtype), checks)


def check(cases, checks):
    for name, arguments in cases.items():
        for values in arguments:
            torch.library.opcheck(getattr(OPERATORS, name), values, test_utils=checks)


def test_no_operator_is_left_out(device):
    both = {**calls(device, "lstm", torch.float32), **product_calls(device, torch.float32)}
    assert sorted(both) == registered()


class Counting(TorchDispatchMode):
    """Counts the operators that run inside."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("cell", list(CELLS))
def test_on_the_meta_device_a_recurrence_is_one_operator(cell):
    """Not the reference's steps, thousands for a long sequence: shapes are all that is asked for."""
    gates = CELLS[cell].gates
    x = torch.empty(2, 64, 64, 8, device="meta", requires_grad=True)
    shapes = ((4, gates * 16, 8), (4, gates * 16, 16), (4, gates * 16), (4, gates * 16))
    weights = [torch.empty(shape, device="meta", requires_grad=True) for shape in shapes]
    with Counting() as counted:
        out = rnn2d(x, *weights, cell=cell)
        out.sum().backward()
    assert out.shape == (2, 64, 64, 64)
    assert [weight.grad.shape for weight in weights] == list(map(torch.Size, shapes))
    assert counted.count < 30
