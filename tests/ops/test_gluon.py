"""The kernels with W_hh in registers equal float64, on a CPU (`gluon_on_cpu`). test_fused.py has them on a GPU."""

import functools

import pytest
import torch

from sequencer2d.ops import devices, rnn2d, scan_kernels, tuning
from sequencer2d.ops.launches import RegisterLaunch
from sequencer2d.ops.sequences import rnn_sequence
from sequencer2d.ops.weights import Weights
from tests.ops.problems import NAMES, budgets, make_problem, relative_errors

gluon_forward = pytest.importorskip(
    "sequencer2d.ops.kernels.gluon_forward", reason="Triton has no Gluon", exc_type=ImportError
)
if torch.cuda.is_available():
    pytest.skip("the kernels themselves run on a GPU", allow_module_level=True)


@pytest.fixture
def launches(monkeypatch):
    """Launches by kernel, to be changed; the machine has one multiprocessor, so programs take several tiles."""
    from tests.ops import gluon_on_cpu

    gluon_on_cpu.install(monkeypatch)
    chosen = {}
    monkeypatch.setattr(
        scan_kernels, "runs_in_registers", lambda gates, weight_hh, cell, save_activations=False: cell == "lstm"
    )
    monkeypatch.setattr(tuning, "choose_register_launches", lambda kernel, *_: (chosen[kernel],))
    return chosen


def check(problem, launches, gates, forward_rows, warps, stages, **tiles):
    """Within the budget that the kernels on a GPU have, too."""
    launches["forward"] = launches["training"] = RegisterLaunch(forward_rows, warps, stages, 6, **tiles)
    launches["backward"] = RegisterLaunch(16, warps, stages, 6, **tiles)
    expected = problem.to(torch.float64).solve("reference")
    errors, budget = relative_errors(problem.solve("triton", gates), expected), budgets(problem, expected)
    over = {name: (errors[name], budget[name]) for name in NAMES if not errors[name] <= budget[name]}
    assert not over, f"(error, budget) of {over}"


@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 1), (2, 1, 9), (9, 5, 3)], ids=str)
def test_output_and_every_gradient(launches, size, gates):
    """One step and fewer than are copied ahead, one row, several tiles a program, rows that do not exist."""
    batch, height, width = size
    problem = make_problem("cpu", torch.float16, hidden=32, batch=batch, height=height, width=width, channels=8)
    check(problem, launches, gates, forward_rows=8, warps=4, stages=3)


@pytest.mark.parametrize(
    ("hidden", "rows", "warps", "stages"), [(16, 16, 2, 2), (48, 8, 2, 4), (64, 16, 8, 3), (128, 8, 8, 3)]
)
def test_chunks_tiles_and_stages(launches, hidden, rows, warps, stages):
    problem = make_problem("cpu", torch.float16, hidden=hidden, batch=3, height=4, width=7, channels=8)
    check(problem, launches, "stored", forward_rows=rows, warps=warps, stages=stages)


@pytest.mark.parametrize(("registers", "shared"), [(9, 0), (4, 5), (3, 2), (0, 0)])
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
def test_w_hh_spread_over_registers_shared_memory_and_memory(launches, registers, shared, gates):
    problem = make_problem("cpu", torch.float16, hidden=48, batch=3, height=4, width=3, channels=8)
    check(problem, launches, gates, 8, 2, 3, register_tiles=registers, shared_tiles=shared)


def test_w_hh_spread_with_eight_warps(launches):
    problem = make_problem("cpu", torch.float16, hidden=192, batch=1, height=2, width=3, channels=8)
    check(problem, launches, "stored", 8, 8, 2, register_tiles=3, shared_tiles=3)


@pytest.mark.parametrize("scans", [(0,), (3,), (2, 1), (1, 3, 0)], ids=str)
def test_any_selection_of_scans(launches, scans):
    problem = make_problem("cpu", torch.float16, hidden=16, batch=3, height=4, width=5, scans=scans, channels=8)
    check(problem, launches, "stored", forward_rows=8, warps=2, stages=3)


def test_before_the_launch_before_has_ended_it_reads_the_weights_only(launches, monkeypatch):
    launches["forward"] = RegisterLaunch(8, 2, 3, 6)
    problem = make_problem("cpu", torch.float16, hidden=48, batch=3, height=4, width=5, channels=8)
    x, weight_ih, weight_hh, bias_ih, bias_hh = problem.arguments
    gates = torch.nn.functional.linear(x, weight_ih.flatten(0, 1), (bias_ih + bias_hh).flatten()).detach()
    scan = functools.partial(torch.ops.sequencer2d.scan, gates, weight_hh.detach(), None, [0, 1, 2, 3], "lstm", False)
    expected = scan(weight_is_final=False)[0]
    monkeypatch.setattr(devices, "starts_early", lambda device: True)
    assert torch.equal(scan(weight_is_final=True)[0], expected)
    monkeypatch.setattr(gluon_forward, "gdc_wait", lambda: None)
    with pytest.raises(AssertionError, match="before has ended"):
        scan(weight_is_final=True)


def test_operators_promise_the_shapes_that_they_return(launches):
    """What is kept for backward, and not, has the shapes that a compiler was told of."""
    launches["forward"] = launches["training"] = RegisterLaunch(8, 2, 3, 6)
    launches["backward"] = RegisterLaunch(16, 2, 3, 6)
    problem = make_problem("cpu", torch.float16, hidden=16, batch=1, height=2, width=2, channels=8)
    x, weight_ih, weight_hh, _, _ = problem.arguments
    gates = torch.nn.functional.linear(x, weight_ih.flatten(0, 1))
    kinds = ("test_schema", "test_faketensor")
    scans = [0, 1, 2, 3]
    for save in (False, True):
        arguments = (gates, weight_hh, None, scans, "lstm", save)
        torch.library.opcheck(torch.ops.sequencer2d.scan, arguments, test_utils=kinds)
    out, cells, activations = torch.ops.sequencer2d.scan(gates, weight_hh, None, scans, "lstm", True)
    assert activations.shape == gates.shape
    kept = (problem.grad, activations, weight_hh, None, out, cells, scans, "lstm", True)
    torch.library.opcheck(torch.ops.sequencer2d.scan_backward, kept, test_utils=kinds)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (19, 2)], ids=str)
def test_the_last_state_and_its_gradient(launches, size):
    """c after the last step, for rows in several tiles, and every gradient that it takes part in."""
    launches["forward"] = launches["training"] = RegisterLaunch(8, 2, 3, 6)
    launches["backward"] = RegisterLaunch(16, 2, 3, 6)
    sequences, steps = size
    problem = make_problem("cpu", torch.float16, hidden=32, batch=sequences, height=steps, width=1, scans=(0, 1))
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(2, sequences, 32, generator=generator) for _ in range(2)]
    solved = []
    for dtype, by_reference in ((torch.float64, True), (torch.float16, True), (torch.float16, False)):
        x, *weights = (argument.detach().to(dtype).requires_grad_() for argument in problem.arguments)
        out, last = rnn_sequence(x.squeeze(2), Weights(*weights), cell="lstm", by_reference=by_reference)
        outputs, given = [out, *last], [problem.grad.squeeze(2).to(dtype), *(grad.to(dtype) for grad in grads)]
        solved.append([*outputs, *torch.autograd.grad(outputs, [x, *weights], given)])
        with torch.no_grad():
            again = rnn_sequence(x.squeeze(2), Weights(*weights), cell="lstm", by_reference=by_reference)
        torch.testing.assert_close([again[0], *again[1]], [out, *last])
    for expected, plain, kernels in zip(*solved, strict=True):
        errors = [((v.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item() for v in (kernels, plain)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(torch.float16).eps


def test_what_was_not_copied_yet_shows(launches, monkeypatch):
    """The emulation is no better than the kernels: a wait for too few copies leaves NaN."""
    monkeypatch.setattr(gluon_forward.async_copy, "wait_group", lambda left: None)
    problem = make_problem("cpu", torch.float16, hidden=16, batch=1, height=4, width=5, channels=8)
    launches["forward"] = RegisterLaunch(8, 2, 3, 6)
    with torch.no_grad():
        out = rnn2d(*problem.arguments, implementation="triton")
    assert out.isnan().any()
