"""A cell is one row of the table. With it every implementation runs the cell or says why it cannot."""

import pytest
import torch

from sequencer2d.errors import ConfigError, ImplementationError
from sequencer2d.nn.rnn2d import RNN2D
from sequencer2d.ops import CELLS, choose_implementation, rnn2d
from sequencer2d.ops.fused import split_biases
from tests.ops.problems import NAMES, make_problem, relative_errors

pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture(autouse=True)
def toy_cells(monkeypatch):
    from tests.ops import toy_cells

    monkeypatch.setitem(CELLS, "leaky", toy_cells.LEAKY)
    monkeypatch.setitem(CELLS, "averaging", toy_cells.AVERAGING)


def by_hand(problem, step):
    """The scans of a problem, token by token, with `step(i, slot, h before) -> h` on the tokens of one sequence."""
    x = problem.arguments[0]
    batch, height, width, _ = x.shape
    hidden = problem.arguments[2].shape[-1]
    out = x.new_zeros(batch, height, width, len(problem.scans), hidden)
    for slot, scan in enumerate(problem.scans):
        for b in range(batch):
            columns = [[(b, i, j) for i in range(height)] for j in range(width)]
            lines = [[(b, i, j) for j in range(width)] for i in range(height)]
            for sequence in columns if scan < 2 else lines:
                h = x.new_zeros(hidden)
                for place in reversed(sequence) if scan % 2 else sequence:
                    h = step(x[place], slot, h)
                    out[(*place, slot)] = h
    return out.flatten(-2)


def test_the_reference_runs_a_new_row():
    problem = make_problem("cpu", torch.float64, cell="leaky", hidden=5, channels=3, scans=(1, 2))
    _, weight_ih, weight_hh, bias_ih, bias_hh = problem.arguments

    def step(token, slot, h):
        pre_activation = weight_ih[slot] @ token + bias_ih[slot] + weight_hh[slot] @ h + bias_hh[slot]
        return (h + pre_activation.tanh()) / 2

    torch.testing.assert_close(problem.solve("reference")["h"], by_hand(problem, step), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_kernels_run_a_new_row_with_every_gradient(device, gates, dtype):
    """One gate and a state h, which none of the package's own cells combine."""
    problem = make_problem(device, dtype, cell="leaky", hidden=24)
    expected = problem.to(torch.float64).solve("reference")
    errors = relative_errors(problem.solve("triton", gates), expected)
    plain = relative_errors(problem.solve("reference"), expected)
    assert all(errors[name] <= 2 * plain[name] + torch.finfo(dtype).eps for name in NAMES), (errors, plain)


def test_a_cell_that_does_not_recur_through_h_has_no_recurrent_weights():
    problem = make_problem("cpu", torch.float64, cell="averaging", hidden=5, channels=3)
    _, weight_ih, weight_hh, bias_ih, bias_hh = problem.arguments
    assert weight_hh.shape == (4, 0, 5)
    assert bias_hh.shape == (4, 0)

    def step(token, slot, h):
        weight, value = (weight_ih[slot] @ token + bias_ih[slot]).chunk(2)
        return weight.sigmoid() * h + (1 - weight.sigmoid()) * value

    out = rnn2d(*problem.arguments, cell="averaging", implementation="reference")
    torch.testing.assert_close(out, by_hand(problem, step), rtol=1e-12, atol=1e-12)
    inputs = [value.clone().requires_grad_() for value in (problem.arguments[0][:1, :2, :2], weight_ih, bias_ih)]

    def run(x, weight_ih, bias_ih):
        return rnn2d(x, weight_ih, weight_hh, bias_ih, bias_hh, cell="averaging", implementation="reference")

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize(("cell", "name"), [("averaging", "triton"), ("averaging", "aten"), ("leaky", "aten")])
def test_an_implementation_that_lacks_the_cell_says_so(device, cell, name):
    x = torch.zeros(1, 2, 2, 4, device="cpu" if name == "aten" else device)
    with pytest.raises(ImplementationError, match=f"the cell {cell}"):
        choose_implementation(x, 16, cell=cell, implementation=name)
    assert choose_implementation(x.cpu(), 16, cell=cell) == "reference"


@pytest.mark.parametrize("cell", ["leaky", "averaging"])
def test_a_mixer_takes_a_new_row(cell):
    mixer = RNN2D(8, 4, cell=cell, bidirectional=False)
    assert mixer.stack("weight_hh").shape == (2, CELLS[cell].recurrent_gates * 4, 4)
    out = mixer(torch.randn(2, 3, 4, 8))
    assert out.shape == (2, 3, 4, 8)
    out.sum().backward()
    assert mixer.rnn_v.weight_ih_l0.grad.abs().sum() > 0


def test_exports_of_a_cell_without_a_node_of_onnx_say_so():
    from sequencer2d.export.onnx_layer import onnx_node

    with pytest.raises(ConfigError, match="'leaky'"):
        onnx_node("leaky")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "leaky", "averaging"])
def test_biases_are_split_without_changing_their_sum(cell):
    """One is added to the input product, one goes into the recurrent product of the inner gate."""
    row, hidden = CELLS[cell], 3
    generator = torch.Generator().manual_seed(0)
    bias_ih = torch.randn(2, row.gates * hidden, generator=generator)
    bias_hh = torch.randn(2, row.recurrent_gates * hidden, generator=generator)
    outer, inner = split_biases(bias_ih, bias_hh, cell)
    total = outer.view(2, row.gates, hidden).clone()
    assert (inner is None) == (row.inner_gate is None)
    if inner is not None:
        torch.testing.assert_close(total[:, row.inner_gate], bias_ih.view(2, row.gates, hidden)[:, row.inner_gate])
        total[:, row.inner_gate] += inner
    expected = bias_ih + (bias_hh if row.recurrent else 0)
    torch.testing.assert_close(total.flatten(1), expected)
