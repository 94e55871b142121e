"""Kernels that a device or its Triton cannot run give way to the next implementation, and say so once."""

import warnings

import pytest
import torch

from sequencer2d.errors import ImplementationError
from sequencer2d.ops import choose_implementation, compile_errors, devices, fused, rnn2d, scan_kernels, targets
from tests.ops.problems import NAMES, make_problem, relative_errors

triton = pytest.importorskip("triton", reason="Triton is not installed")


@pytest.fixture
def forgetful(monkeypatch):
    """Nothing is ruled out, and no launch is kept, before a test or by it.

    What a GPU's Triton can compile is asked first: the answer is kept for the process, and a test breaks kernels.
    """
    from sequencer2d.ops.kernels import launching, prepared

    if torch.cuda.is_available():
        for family in ("shared", "registers", "products"):
            assert devices.problem(family, "cuda", torch.cuda.current_device()) is None

    monkeypatch.setattr(compile_errors, "_RULED_OUT", {})
    monkeypatch.setattr(launching, "_REFUSED", set())
    monkeypatch.setattr(prepared, "_HANDLES", {})


def compilation_error():
    from triton.compiler.errors import CompilationError

    return CompilationError("", None, "chained boolean operators are not supported")


def broken(monkeypatch, *names):
    """Have launches of modules' kernels fail as Triton fails to compile; returns what was tried."""
    from sequencer2d.ops.kernels import launching, prepared, triton_backward, triton_forward, triton_linear

    monkeypatch.setattr(prepared, "_HANDLES", {})  # a launch that was kept would not fail
    modules = {"forward": triton_forward, "backward": triton_backward, "products": triton_linear}
    tried = []

    def refuse(kernel, *_, **__):
        tried.append(kernel)
        raise compilation_error()

    for name in names:
        run = launching.run_kernel
        kernels = [value for key, value in vars(modules[name]).items() if key.endswith("_kernel")]
        monkeypatch.setattr(
            launching,
            "run_kernel",
            lambda kernel, *a, run=run, kernels=kernels, **o: (
                refuse(kernel) if any(kernel is k for k in kernels) else run(kernel, *a, **o)
            ),
        )
    return tried


@pytest.mark.parametrize("gates", ["stored", "recomputed"])
@pytest.mark.parametrize("part", ["forward", "backward"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.usefixtures("forgetful")
def test_what_does_not_compile_gives_way(device, cell, part, gates, monkeypatch):
    """The first step that meets it is right, by the reference; from then on another implementation is chosen."""
    monkeypatch.setattr(scan_kernels, "runs_in_registers", lambda *_: False)
    problem = make_problem(device, torch.float32, cell=cell, batch=1)
    expected = problem.to(torch.float64).solve("reference")
    tried = broken(monkeypatch, part)
    with pytest.warns(RuntimeWarning, match="do not compile with Triton .*chained boolean"):
        errors = relative_errors(problem.solve("triton", gates), expected)
    assert all(errors[name] < 1e-5 for name in NAMES), errors
    assert tried
    tried.clear()
    x = problem.arguments[0]
    reason = fused.refusal(x, 16, problem.scans, cell)
    assert reason is not None
    assert "do not compile" in reason
    with pytest.raises(ImplementationError, match="chained boolean"):
        choose_implementation(x, 16, cell=cell, implementation="triton")
    assert choose_implementation(x, 16, cell=cell) == ("cudnn" if x.is_cuda else "aten")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem.solve("auto", gates)
    assert not tried
    # Another dtype is another problem.
    assert fused.refusal(x.half(), 16, problem.scans, cell) is None


@pytest.mark.usefixtures("forgetful")
def test_products_that_do_not_compile_give_way(device, monkeypatch):
    x, matrix, vector = (torch.randn(*shape, device=device).half() for shape in ((6, 16), (16, 16), (16,)))
    o = torch.ops.sequencer2d
    expected = [o.normed_linear(x, vector, matrix, vector, 1e-6, True), x.clone()]
    o.add_linear_(expected[1], x, matrix)
    tried = broken(monkeypatch, "products")
    with pytest.warns(RuntimeWarning, match="products"):
        found = [o.normed_linear(x, vector, matrix, vector, 1e-6, True), x.clone()]
    o.add_linear_(found[1], x, matrix)  # without a warning, which would be an error
    assert len(tried) == 1
    for other, value in zip(found, expected, strict=True):
        assert (other - value).norm() < 2e-3 * value.norm()


@pytest.mark.usefixtures("forgetful")
def test_a_launch_that_does_not_compile_gives_way_to_the_next(monkeypatch):
    from sequencer2d.ops.kernels.launching import first_that_fits

    def start(candidate):
        tried.append(candidate)
        if candidate > 2:
            raise compilation_error()

    tried = []
    with pytest.warns(RuntimeWarning, match="next launch of the table"):
        first_that_fits(("a",), (8, 2, 1), start)
    first_that_fits(("a",), (8, 2, 1), start)
    assert tried == [8, 2, 2]
    with pytest.raises(compile_errors.CompileError, match="chained boolean"):
        first_that_fits(("a",), (9,), start)


def test_errors_of_a_launch_are_not_taken_for_the_compilers():
    from sequencer2d.ops.kernels.launching import first_that_fits

    def start(_):
        raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        first_that_fits(("b",), (2, 1), start)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as far as devices are asked, of which nothing is compiled."""
    if torch.cuda.is_available():
        torch.cuda.init()  # which would warn of the capability that a test gives it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda *_: warnings.catch_warnings())
    compiled = []
    monkeypatch.setattr(devices, "_COMPILE", dict.fromkeys(devices._COMPILE, compiled.append))
    devices._ask.cache_clear()
    targets.find.cache_clear()
    yield compiled
    devices._ask.cache_clear()
    targets.find.cache_clear()


def test_a_family_is_asked_once(gpu):
    assert [devices.problem("shared", "cuda", 0) for _ in range(3)] == [None] * 3
    assert gpu == [torch.device("cuda", 0)]


def test_amds_gpus_take_the_vendors_kernels(gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.3", raising=False)
    with pytest.warns(RuntimeWarning, match="vendor's kernels.*AMD"):
        assert "AMD" in devices.problem("shared", "cuda", 0)
    for family in ("shared", "registers", "products"):  # again, and without a warning
        assert "AMD" in devices.problem(family, "cuda", 0)
    assert targets.find("cuda", 0) is None
    assert not gpu
    with torch._subclasses.fake_tensor.FakeTensorMode():
        x = torch.empty(1, 2, 3, 16, device="cuda:0")
        assert choose_implementation(x, 16) == "cudnn"
        with pytest.raises(ImplementationError, match="AMD"):
            choose_implementation(x, 16, implementation="triton")
        gates = torch.empty(1, 2, 3, 4 * 4 * 96, device="cuda:0", dtype=torch.bfloat16)
        assert not scan_kernels.runs_in_registers(gates, gates.new_empty(4, 4 * 96, 96), "lstm")


@pytest.mark.parametrize("capability", [(7, 5), (13, 0)], ids=str)
def test_gpus_without_a_row_take_the_vendors_kernels_and_say_so(gpu, capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    with (
        pytest.warns(RuntimeWarning, match=r"vendor's kernels: .* 8\.0, .* this one has {}\.{}".format(*capability)),
        torch._subclasses.fake_tensor.FakeTensorMode(),
    ):
        assert choose_implementation(torch.empty(1, 2, 3, 16, device="cuda:0"), 16) == "cudnn"
    assert "this one has" in devices.problem("products", "cuda", 0)
    assert not gpu


@pytest.mark.parametrize("row", targets.TARGETS, ids=lambda row: row.name)
def test_a_row_decides_what_its_gpu_runs(gpu, row, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: row.capability)
    device = torch.device("cuda", 0)
    assert targets.of(device) is row
    assert devices.problem("shared", "cuda", 0) is None
    assert devices.starts_early(device) == (row.capability >= (9, 0))
    with torch._subclasses.fake_tensor.FakeTensorMode():
        gates = torch.empty(1, 2, 3, 4 * 4 * 96, device=device, dtype=torch.bfloat16)
        assert devices.approximates_tanh(gates)
        assert not devices.approximates_tanh(gates.half())
        assert scan_kernels.runs_in_registers(gates, gates.new_empty(4, 4 * 96, 96), "lstm", save_activations=True)
        narrow = gates.new_empty(1, 2, 3, 4 * 4 * 48), gates.new_empty(4, 4 * 48, 48), "lstm"
        assert scan_kernels.runs_in_registers(*narrow)
        assert not scan_kernels.runs_in_registers(*narrow, save_activations=True)
        assert not scan_kernels.runs_in_registers(gates, gates.new_empty(4, 4 * 80, 80), "lstm")


def test_a_capability_has_one_row():
    capabilities = [row.capability for row in targets.TARGETS]
    assert capabilities == sorted(set(capabilities))


def test_a_triton_that_lacks_a_feature_is_asked_for_it(gpu, monkeypatch):
    """Gluon is an experimental part of Triton: its parts come, move and go."""
    import importlib

    def import_module(name, *_):
        raise ImportError("cannot import name 'mma_v2'")

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert "mma_v2" in devices.problem("registers", "cuda", 0)


def test_a_family_that_does_not_compile_says_so_once(gpu, monkeypatch):
    def fail(_):
        raise compilation_error()

    monkeypatch.setitem(devices._COMPILE, "registers", fail)
    with pytest.warns(RuntimeWarning, match="'registers' .* give way.*chained boolean"):
        assert "do not compile" in devices.problem("registers", "cuda", 0)
    assert "do not compile" in devices.problem("registers", "cuda", 0)  # again, and without a warning


@pytest.mark.parametrize("implementation", ["auto", "reference", "aten", "triton"])
@pytest.mark.parametrize("size", [(0, 4), (3, 0), (0, 0)], ids=str)
def test_a_grid_without_rows_or_columns_is_refused(device, size, implementation):
    from sequencer2d.errors import InputError

    problem = make_problem(device, torch.float16, height=size[0], width=size[1])
    with pytest.raises(InputError, match="at least one row and one column"):
        rnn2d(*problem.arguments, implementation=implementation)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("size", [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=str)
def test_operators_launch_nothing_for_an_empty_grid(device, size, cell):
    """Whoever calls them."""
    problem = make_problem(device, torch.float16, cell=cell, hidden=48)
    _, _, weight_hh, _, bias_hh = problem.arguments
    o, scans, bias_n = torch.ops.sequencer2d, [0, 1, 2, 3], bias_hh[:, :48].contiguous() if cell == "gru" else None
    gates = torch.empty(*size, weight_hh.shape[0] * weight_hh.shape[1], device=device, dtype=torch.float16)
    for keep in (False, True):
        out, cells, activations = o.scan(gates, weight_hh, bias_n, scans, cell, keep)
        assert out.shape == (*size, 4 * 48)
    kept, activated = (activations, True) if activations.dim() == gates.dim() else (gates, False)
    grads = o.scan_backward(out, kept, weight_hh, bias_n, out, cells, scans, cell, activated)
    assert grads[0].shape == gates.shape
    assert not grads[1].any()
    assert not grads[2].any()
    if device.type == "cuda":
        torch.cuda.synchronize()


@pytest.mark.parametrize(
    ("dtype", "hidden", "expected"),
    [
        (torch.float32, 128, "triton"),
        (torch.float32, 129, "cudnn"),
        (torch.bfloat16, 256, "triton"),
        (torch.float16, 257, "cudnn"),
    ],
    ids=str,
)
def test_auto_does_not_take_kernels_that_were_not_timed(monkeypatch, dtype, hidden, expected):
    monkeypatch.setattr(devices, "problem", lambda *_: None)
    with torch._subclasses.fake_tensor.FakeTensorMode():
        x = torch.empty(2, 3, 8, device="cuda", dtype=dtype)
    assert choose_implementation(x, hidden, scans=(0, 1)) == expected
    assert choose_implementation(x, hidden, scans=(0, 1), implementation="triton") == "triton"
    for faster, chosen in ((True, "triton"), (False, "cudnn")):  # as sequences say, which have a table of their own
        assert choose_implementation(x, hidden, scans=(0,), kernels_are_faster=faster) == chosen
