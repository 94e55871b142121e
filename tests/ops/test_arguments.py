"""Arguments of any form: without biases, with any strides and addresses, under autocast."""

import pytest
import torch

from sequencer2d.ops import rnn2d, scan_kernels
from tests.ops.problems import NAMES, Problem, budgets, make_problem, relative_errors

ON_GPU = torch.cuda.is_available()


def test_views_that_begin_anywhere(device):
    """Asynchronous copies want addresses that are multiples of 16 bytes."""
    problem = make_problem(device, torch.float16, hidden=64, batch=1)
    shifted = torch.cat([problem.grad.new_zeros(3), problem.grad.flatten()])[3:].view(problem.grad.shape)
    assert shifted.data_ptr() % 16
    assert shifted.is_contiguous()
    assert scan_kernels.aligned(shifted).data_ptr() % 16 == 0
    assert scan_kernels.aligned(problem.grad) is problem.grad
    expected = problem.solve("triton")
    solved = type(problem)(problem.arguments, shifted, problem.scans, problem.cell).solve("triton")
    assert all(torch.equal(solved[name], expected[name]) for name in NAMES)


def test_non_contiguous_input_and_gradient(device):
    problem = make_problem(device, torch.float32)
    x = problem.arguments[0].permute(0, 2, 1, 3).contiguous().permute(0, 2, 1, 3)
    grad = problem.grad.flip(1).contiguous().flip(1).expand_as(problem.grad)
    assert not x.is_contiguous()
    expected = problem.solve("triton")
    strided = type(problem)((x, *problem.arguments[1:]), grad, problem.scans, problem.cell).solve("triton")
    # Bitwise where all products are ours; cuBLAS may take another kernel for another layout of its input.
    tolerance = 1e-5 if ON_GPU else 0
    for name, error in relative_errors(strided, {name: value.double() for name, value in expected.items()}).items():
        assert error <= tolerance, name


def test_autocast_computes_output_and_gradients_in_its_dtype(device):
    problem = make_problem(device, torch.float32)
    dtype = torch.bfloat16 if ON_GPU else torch.float16
    with torch.autocast(device.type, dtype):
        leaves = [a.clone().requires_grad_() for a in problem.arguments]
        out = rnn2d(*leaves, implementation="triton")
        assert out.dtype == dtype
    grads = torch.autograd.grad(out, leaves, problem.grad.to(dtype))
    assert all(g.dtype == torch.float32 for g in grads)
    expected = problem.to(torch.float64).solve("reference")
    values = dict(zip(NAMES, (out.detach(), *grads), strict=True))
    # In 16 bits a problem errs as its arguments do when they are rounded.
    budget = budgets(problem.to(dtype), expected)
    errors = relative_errors(values, expected)
    assert all(errors[name] <= budget[name] for name in NAMES), (errors, budget)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("implementation", ["triton", "aten", "reference"])
def test_recurrences_without_biases_equal_those_with_zeros(device, cell, gates, implementation):
    """Output and every gradient, forward in training and in inference."""
    if implementation == "aten":
        device = torch.device("cpu")
    problem = make_problem(device, torch.float32, cell=cell, height=2)
    weights = problem.arguments[:3]
    zeros = [torch.zeros_like(bias) for bias in problem.arguments[3:]]
    options = {"cell": cell, "implementation": implementation, "gates": gates}
    expected = Problem((*weights, *zeros), problem.grad, problem.scans, cell).to(torch.float64).solve("reference")
    leaves = [value.clone().requires_grad_() for value in weights]
    out = rnn2d(*leaves, **options)
    values = (out.detach(), *torch.autograd.grad(out, leaves, problem.grad))
    with torch.no_grad():
        torch.testing.assert_close(rnn2d(*weights, **options), values[0], rtol=1e-6, atol=1e-6)
    for name, value in zip(NAMES, values, strict=False):
        error = (value.double() - expected[name]).norm() / expected[name].norm()
        assert error < 2e-6, (name, error)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("implementation", ["triton", "aten"])
def test_weights_of_any_strides_have_the_same_gradients(device, cell, gates, implementation):
    """Matrices that are stored transposed, a stack whose slots are interleaved, biases with gaps."""
    if implementation == "aten":
        device = torch.device("cpu")
    problem = make_problem(device, torch.float32, cell=cell, height=2)
    x, *weights = problem.arguments
    transposed = [w.mT.contiguous().mT if w.ndim == 3 else torch.stack((w, 0 * w), -1)[..., 0] for w in weights]
    interleaved = [w.movedim(0, -1).contiguous().movedim(-1, 0) for w in weights]
    expected = problem.to(torch.float64).solve("reference")
    for strided in (transposed, interleaved):
        assert not any(w.is_contiguous() for w in strided)
        leaves = [x, *strided]
        assert all(torch.equal(value, given) for value, given in zip(leaves, problem.arguments, strict=True))
        leaves = [value.detach().requires_grad_() for value in leaves]
        out = rnn2d(*leaves, cell=cell, implementation=implementation, gates=gates)
        grads = torch.autograd.grad(out, leaves, problem.grad)
        errors = relative_errors(dict(zip(NAMES, (out.detach(), *grads), strict=True)), expected)
        assert all(error < 2e-6 for error in errors.values()), errors
