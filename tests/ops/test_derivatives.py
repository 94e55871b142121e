"""Derivatives that the kernels lack are refused, never zero; "auto" takes an implementation that has them."""

import pytest
import torch
from torch.autograd import forward_ad

from sequencer2d import optimize
from sequencer2d.errors import ImplementationError
from sequencer2d.ops import choose_implementation, rnn2d
from tests.models.small import small_model
from tests.ops.problems import make_problem

# PyTorch's own forward mode imports what its compiler of scripts has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")


def functions(problem, implementation):
    return lambda x: rnn2d(x, *problem.arguments[1:], scans=problem.scans, implementation=implementation)


def test_auto_is_right_under_every_transform(device):
    problem = make_problem(device, torch.float32, channels=8)
    x, v = problem.arguments[0], torch.randn_like(problem.arguments[0])
    auto, reference = functions(problem, "auto"), functions(problem, "reference")
    jvp = [torch.func.jvp(function, (x,), (v,))[1] for function in (auto, reference)]
    torch.testing.assert_close(*jvp)
    assert jvp[0].norm() > 1e-2
    gradients = [torch.func.grad(lambda x: f(x).square().sum())(x) for f in (auto, reference)]  # noqa: B023
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    images = torch.stack([x, x + 1])
    torch.testing.assert_close(torch.vmap(auto)(images), torch.stack([reference(x) for x in images]))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(auto(forward_ad.make_dual(x, v))).tangent
    torch.testing.assert_close(tangent, jvp[1])


def test_jvp_of_a_model(device):
    model = small_model().eval().requires_grad_(False).to(device)
    images = torch.randn(1, 3, 56, 56, device=device)
    v, derivatives = torch.randn_like(images), []
    for implementation in ("reference", "auto"):
        model.set_implementation(implementation)
        derivatives.append(torch.func.jvp(model, (images,), (v,))[1])
    assert derivatives[0].norm() > 0
    torch.testing.assert_close(derivatives[1], derivatives[0], rtol=1e-4, atol=1e-5)


def test_an_optimized_model_has_no_derivatives(device):
    model = optimize(small_model().to(device), compile=False)
    images = torch.randn(1, 3, 56, 56, device=device)
    with pytest.raises(ImplementationError, match="no derivatives"):
        torch.func.jvp(model, (images,), (images,))
    with pytest.raises(ImplementationError, match="no derivatives"):
        torch.func.grad(lambda images: model(images).sum())(images)


def test_a_weights_tangent_counts_too(device):
    problem = make_problem(device, torch.float32, channels=8)
    x, weight_ih, weight_hh, *biases = problem.arguments
    v = torch.randn_like(weight_hh)
    derivatives = [
        torch.func.jvp(lambda w: rnn2d(x, weight_ih, w, *biases, implementation=i), (weight_hh,), (v,))[1]  # noqa: B023
        for i in ("auto", "reference")
    ]
    torch.testing.assert_close(*derivatives)
    assert derivatives[0].norm() > 1e-2


@pytest.mark.parametrize("transform", ["jvp", "grad", "vmap"])
def test_a_named_implementation_says_what_it_does_not_take(device, transform):
    problem = make_problem(device, torch.float32, channels=8)
    x, function = problem.arguments[0], functions(problem, "triton")
    run = {
        "jvp": lambda: torch.func.jvp(function, (x,), (x,)),
        "grad": lambda: torch.func.grad(lambda x: function(x).sum())(x),
        "vmap": lambda: torch.vmap(function)(torch.stack([x, x])),
    }[transform]
    with pytest.raises(ImplementationError, match=f"torch.func's {transform} .*reference"):
        run()
    assert choose_implementation(x, 16, implementation="triton") == "triton"  # outside of the transform


def test_operators_refuse_forward_mode_derivatives(device):
    """Whoever calls them: a model that `optimize` made, say."""
    o, scans = torch.ops.sequencer2d, [0, 1, 2, 3]
    problem = make_problem(device, torch.float32, channels=8)
    x, weight_ih, weight_hh, bias_ih, bias_hh = problem.arguments
    gates = torch.nn.functional.linear(x, weight_ih.flatten(0, 1))
    shift, matrix = x.new_zeros(8), torch.randn(8, 8, device=device)
    calls = {
        "scan": lambda t: o.scan(t * gates, weight_hh, None, scans, "lstm", False)[0],
        "scan's weight": lambda t: o.scan(gates, t * weight_hh, None, scans, "lstm", False)[0],
        "rnn2d": lambda t: o.rnn2d(t * x, weight_ih, weight_hh, bias_ih, bias_hh, scans, "lstm"),
        "linear_gelu": lambda t: o.linear_gelu(t * x, matrix, None),
        "normed_linear": lambda t: o.normed_linear(t * x, shift, matrix, shift, 1e-6, False),
        "add_linear_": lambda t: o.add_linear_(torch.zeros_like(x), t * x, matrix),
    }
    one = torch.ones((), device=device)
    for call in calls.values():
        call(one)
        with pytest.raises(ImplementationError, match="forward-mode"):
            torch.func.jvp(call, (one,), (one,))


def test_operators_for_inference_refuse_gradients(device):
    o = torch.ops.sequencer2d
    x, matrix = torch.randn(3, 8, device=device, requires_grad=True), torch.randn(8, 8, device=device)
    vector = torch.zeros(8, device=device)
    calls = {
        "linear_gelu": lambda: o.linear_gelu(x, matrix, None),
        "normed_linear": lambda: o.normed_linear(x, vector, matrix, vector, 1e-6, False),
        "add_linear_": lambda: o.add_linear_(torch.zeros(3, 8, device=device), x, matrix),
    }
    for name, call in calls.items():
        with pytest.raises(ImplementationError, match=f"{name} is for inference"):
            call()
        with torch.no_grad():
            call()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
def test_backward_inside_another_autocast_computes_in_the_dtype_of_forward(device, cell, gates):
    problem = make_problem(device, torch.float32, cell=cell)
    expected = problem.solve("triton", gates)
    leaves = [a.clone().requires_grad_() for a in problem.arguments]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float16
    with torch.autocast(device.type, dtype):
        with torch.autocast(device.type, enabled=False):
            y = rnn2d(*leaves, cell=cell, implementation="triton", gates=gates)
        found = torch.autograd.grad(y, leaves, problem.grad)
    assert torch.equal(y, expected["h"])
    for value, (name, right) in zip(found, list(expected.items())[1:], strict=True):
        assert value.dtype is torch.float32, name
        assert torch.equal(value, right), name
