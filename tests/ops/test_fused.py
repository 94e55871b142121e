"""The fused recurrence equals float64 within the error of PyTorch's own kernels, and keeps its promises around it."""

import gc

import pytest
import torch
from torch import Tensor

from sequencer2d.errors import ImplementationError
from sequencer2d.ops import fused, rnn2d, scan_kernels, streamed_scans, tuning
from sequencer2d.ops.launches import H200, SharedLaunch, StreamedLaunch
from tests.ops.problems import NAMES, budgets, make_problem, relative_errors

ON_GPU = torch.cuda.is_available()
# The interpreter computes bf16 products wrongly, so a CPU tests fp16 and fp32.
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if ON_GPU else [])
gpu = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device: too large for the interpreter")


def check(device: torch.device, dtype: torch.dtype, gates: str = "stored", **options) -> None:
    problem = make_problem(device, dtype, **options)
    expected = problem.to(torch.float64).solve("reference")
    errors = relative_errors(problem.solve("triton", gates), expected)
    budget = budgets(problem, expected)
    over = {name: (errors[name], budget[name]) for name in NAMES if not errors[name] <= budget[name]}
    assert not over, f"(error, budget) of {over} with {dtype} {options}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
def test_output_and_every_gradient(device, dtype, cell, gates):
    check(device, dtype, gates, cell=cell)


@pytest.mark.parametrize("hidden", [16, 20, 24, 32, 48, 64] + ([96, 128, 192, 256] if ON_GPU else []))
def test_hidden_sizes_that_fill_chunks_and_that_do_not(device, hidden):
    for dtype in DTYPES[1:] if hidden > 24 else DTYPES:
        check(device, dtype, hidden=hidden, batch=1)


@pytest.mark.parametrize("hidden", [40, 72] + ([100, 128, 192, 256, 300] if ON_GPU else []))
def test_larger_hidden_sizes_in_fp32(device, hidden):
    check(device, torch.float32, hidden=hidden, batch=1, height=2, width=3)


@pytest.fixture
def streamed(monkeypatch):
    """W_hh is read from memory at each step, whatever the number of hidden units."""
    monkeypatch.setattr(streamed_scans, "runs", lambda *_: True)
    monkeypatch.setattr(tuning, "choose_streamed_launches", lambda *_: (StreamedLaunch(16, 16, 32, 4, 2),))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
def test_w_hh_read_at_each_step(device, streamed, dtype, cell, gates):
    """Chunks and parts that hidden units do not fill, two tiles of rows, axes of different numbers of rows."""
    check(device, dtype, gates, cell=cell, hidden=20, batch=7, height=2, width=3)


@pytest.mark.parametrize("hidden", [16, 48])
def test_w_hh_read_at_each_step_in_whole_chunks(device, streamed, hidden):
    check(device, torch.float32, hidden=hidden, batch=1)


@pytest.mark.parametrize("hidden", [48, 64, 96])
def test_launches_for_many_rows_on_few(device, hidden, monkeypatch):
    """What the table gives for many rows, which the interpreter could not compute, is right on few as well."""
    monkeypatch.setattr(scan_kernels, "runs_in_registers", lambda *_: False)
    launches = {name: (H200.shared[name, hidden][0][1],) for name in ("forward", "backward")}
    monkeypatch.setattr(tuning, "choose_shared_launches", lambda kernel, *_: launches[kernel])
    check(device, torch.float16, hidden=hidden, batch=1)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("inputs", [16, 32, 64])
def test_products_over_several_chunks(device, cell, inputs, monkeypatch):
    """Chunks that pad 40 units to 48, products that pad them further."""
    launches = {
        "forward": SharedLaunch(16, 16, 4),
        "backward": SharedLaunch(64, 16, 4, product_inputs=inputs),
    }
    monkeypatch.setattr(tuning, "choose_shared_launches", lambda kernel, *_: (launches[kernel],))
    check(device, torch.float16, hidden=40, batch=1, cell=cell)


@gpu
@pytest.mark.parametrize("hidden", sorted({hidden for _, hidden in H200.registers}))
@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 2, 1), (2, 1, 9), (9, 5, 3), (40, 33, 28)])
def test_w_hh_in_registers(device, hidden, gates, size):
    """Fewer steps than are copied ahead, one row, several tiles a program, tiles that end within a program's rows."""
    batch, height, width = size
    for dtype in DTYPES[1:]:
        check(device, dtype, gates, hidden=hidden, batch=batch, height=height, width=width, channels=32)


@gpu
@pytest.mark.parametrize("hidden", [48, 96])
def test_w_hh_in_shared_memory_where_registers_would_do(device, hidden, monkeypatch):
    monkeypatch.setattr(scan_kernels, "runs_in_registers", lambda *_: False)
    check(device, torch.bfloat16, hidden=hidden, batch=5, height=16, width=14, channels=4 * hidden)


@gpu
@pytest.mark.parametrize("hidden", [24, 32, 48, 64, 96, 128, 192])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_sizes_of_the_models_on_a_gpu(device, hidden, cell):
    for dtype in DTYPES:
        check(device, dtype, hidden=hidden, cell=cell, batch=5, height=16, width=14, channels=4 * hidden)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3)] + ([(14, 16), (28, 32), (33, 64)] if ON_GPU else []))
def test_grids_of_one_row_and_of_one_column(device, size):
    check(device, torch.float32, batch=1, height=size[0], width=size[1])


@pytest.mark.parametrize("scans", [(0,), (3,), (0, 2), (0, 1), (2, 3), (1, 3, 0)])
def test_any_selection_of_scans(device, scans):
    if scans in ((3,), (1, 3, 0)) and ON_GPU:
        pytest.skip("cuDNN, which sets the budget, has no backward scan alone")
    check(device, torch.float32, scans=scans, batch=1)


@pytest.mark.parametrize("gates", ["stored", "recomputed"])
def test_a_batch_without_images_has_zero_gradients(device, gates):
    problem = make_problem(device, torch.float16, batch=0)
    solved = problem.solve("triton", gates)
    assert solved["h"].shape[0] == 0
    assert not solved["weight_hh"].any()


def test_more_rows_than_a_tile_holds(device):
    check(device, torch.float32, batch=9, height=2, width=5)


@gpu
def test_batches_that_fill_the_gpu(device):
    for dtype in DTYPES:
        check(device, dtype, batch=131, height=16, width=17, hidden=96, channels=64)


def test_extreme_pre_activations(device):
    for dtype in DTYPES:
        problem = make_problem(device, dtype, scale=100.0, batch=1)
        for name, value in problem.solve("triton").items():
            assert torch.isfinite(value).all(), name
    check(device, torch.float32, scale=100.0, batch=1)


def test_ten_runs_are_bitwise_equal(device):
    problem = make_problem(device, torch.float16, batch=5, height=3, width=3)
    first = problem.solve("triton")
    for _ in range(9):
        again = problem.solve("triton")
        assert all(torch.equal(first[name], again[name]) for name in NAMES)


def test_every_output_is_written(device, monkeypatch):
    """Outputs start as NaN: whatever the kernels leave out shows."""
    poison = lambda make: lambda *a, **k: make(*a, **k).fill_(float("nan"))  # noqa: E731
    monkeypatch.setattr(Tensor, "new_empty", poison(Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    problem = make_problem(device, torch.float32, hidden=24, batch=3)
    for name, value in problem.solve("triton").items():
        assert torch.isfinite(value).all(), name


def test_inference_equals_training(device):
    problem = make_problem(device, torch.float16)
    with torch.no_grad():
        alone = rnn2d(*problem.arguments, implementation="triton")
    assert torch.equal(alone, problem.solve("triton")["h"])


def test_second_derivative_is_refused(device):
    problem = make_problem(device, torch.float32)
    x = problem.arguments[0].clone().requires_grad_()
    out = rnn2d(x, *problem.arguments[1:], implementation="triton")
    with pytest.raises(ImplementationError, match="second derivative"):
        torch.autograd.grad(out.sum(), x, create_graph=True)


def test_operators_promise_the_shapes_and_dtypes_that_they_return(device):
    problem = make_problem(device, torch.float32, batch=1, height=2, width=2)
    x, weight_ih, weight_hh, _, _ = problem.arguments
    gates = torch.nn.functional.linear(x, weight_ih.flatten(0, 1))
    kinds = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        torch.ops.sequencer2d.scan, (gates, weight_hh, None, [0, 1, 2, 3], "lstm", True), test_utils=kinds
    )
    out, cells, _ = torch.ops.sequencer2d.scan(gates, weight_hh, None, [0, 1, 2, 3], "lstm", True)
    arguments = (problem.grad, gates, weight_hh, None, out, cells, [0, 1, 2, 3], "lstm", False)
    torch.library.opcheck(torch.ops.sequencer2d.scan_backward, arguments, test_utils=kinds)
    torch.library.opcheck(torch.ops.sequencer2d.rnn2d, (*problem.arguments, [0, 1, 2, 3], "lstm"), test_utils=kinds)


@pytest.mark.parametrize(
    ("dtype", "hidden", "tolerance"), [(torch.float32, 16, 1e-5)] + [(torch.bfloat16, 64, 1e-2)] * ON_GPU, ids=str
)
def test_compiles_to_one_graph_with_dynamic_batch(device, dtype, hidden, tolerance):
    problem = make_problem(device, dtype, hidden=hidden)
    compiled = torch.compile(
        lambda *a: rnn2d(*a, implementation="triton"), fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for batch in (2, 3):
        x = torch.cat([problem.arguments[0]] * batch).requires_grad_()
        eager = rnn2d(x, *problem.arguments[1:], implementation="triton")
        traced = compiled(x, *problem.arguments[1:])
        torch.testing.assert_close(traced, eager, rtol=0, atol=tolerance / 10)
        (traced_grad,) = torch.autograd.grad(traced.square().sum(), x)
        (eager_grad,) = torch.autograd.grad(eager.square().sum(), x)
        torch.testing.assert_close(traced_grad, eager_grad, rtol=0, atol=tolerance)


@gpu
def test_offsets_beyond_two_to_the_31(device):
    """The last image of a batch whose gates hold more than 2^31 elements comes out as it does alone."""
    gates_per_image = 64 * 64 * 16 * 96
    batch = 2**31 // gates_per_image + 2
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(4, 384, 96, device=device, generator=generator).div(10).half()
    gates = torch.randn(batch, 64, 64, 1536, device=device, dtype=torch.float16, generator=generator)
    scan = lambda g: torch.ops.sequencer2d.scan(g, weight, None, [0, 1, 2, 3], "lstm", False)[0]  # noqa: E731
    assert gates.numel() > 2**31
    torch.testing.assert_close(scan(gates)[-1:], scan(gates[-1:].clone()), rtol=0, atol=2e-3)


@gpu
def test_a_second_gpu_runs_its_own_tensors(device):
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU")
    problem = make_problem(torch.device("cuda:1"), torch.float16)
    assert problem.solve("triton")["h"].device.index == 1


@gpu
def test_memory_is_steady(device):
    problem = make_problem(device, torch.float16, batch=4)
    for _ in range(10):
        problem.solve("triton")
    # What waits for Python's collector is not a leak.
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(1000):
        problem.solve("triton")
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def test_named_implementation_that_cannot_run_says_why(device):
    problem = make_problem(device, torch.float64)
    with pytest.raises(ImplementationError, match="float64"):
        problem.solve("triton")
    wide = make_problem(device, torch.float32, hidden=513, height=1, width=1)
    with pytest.raises(ImplementationError, match="513"):
        wide.solve("triton")


@pytest.mark.parametrize("learns", [False, True])
def test_without_gradients_to_compute_nothing_is_saved_for_them(device, learns, monkeypatch):
    """Either because no argument needs one, or because autograd is off."""
    problem = make_problem(device, torch.float32, batch=1)
    arguments = [value.detach().clone().requires_grad_(learns) for value in problem.arguments]
    for function in (fused.FusedScan, fused.RecomputedRNN2D):
        monkeypatch.setattr(function, "apply", lambda *_: pytest.fail("a function of autograd ran"))
    for gates in ("stored", "recomputed"):
        with torch.set_grad_enabled(not learns):
            out = rnn2d(*arguments, implementation="triton", gates=gates)
        assert not out.requires_grad
