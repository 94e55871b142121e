"""The drop-in layers return what torch.nn's return, states and gradients included, and stand where those stood."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

import sequencer2d.nn as ours
from sequencer2d.errors import ConfigError, ImplementationError
from sequencer2d.ops import devices, measured, scan_kernels, streamed_scans
from sequencer2d.ops.precision import tf32
from tests.nn.layer_pairs import NAMES, pair, solve, states, tensors, worst


@pytest.fixture
def interpreter(monkeypatch):
    """Triton's interpreter, where there is no GPU."""
    if torch.cuda.is_available():
        yield "cuda"
        return
    pytest.importorskip("triton", reason="Triton is not installed")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    devices._ask.cache_clear()
    yield "cpu"
    devices._ask.cache_clear()


def compare(name, kind, with_states, implementation, dtype, device="cpu", **options):
    theirs, layer = pair(name, 5, 20, 2, implementation=implementation, **options)
    theirs, layer = theirs.to(device, torch.float64), layer.to(device, dtype)
    batch_first = options.get("batch_first", False)
    shape = (4, 5) if kind == "unbatched" else (3, 4, 5) if batch_first else (4, 3, 5)
    x = torch.randn(shape, dtype=torch.float64, device=device)
    first = states(name, layer, 3, torch.float64, device)[0]
    if kind == "unbatched":
        first = [state[:, 0].detach().contiguous() for state in first]  # cuDNN takes no others
    solved = []
    for network, precision in ((theirs, torch.float64), (layer, dtype)):
        leaf = x.to(precision).detach().requires_grad_()
        before = [state.to(precision).detach().requires_grad_() for state in first]
        hx = None if not with_states else tuple(before) if name == "LSTM" else before[0]
        given = leaf
        if kind == "packed":
            given = pack_padded_sequence(leaf, [2, 4, 1], batch_first=batch_first, enforce_sorted=False)
        solved.append(solve(network, given, hx, [leaf, *(before if with_states else [])]))
    return worst(solved[1], solved[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["batched", "unbatched", "packed"])
@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("options", [{}, {"batch_first": True, "bidirectional": True}, {"bias": False}], ids=str)
def test_the_arithmetic_of_sequences_in_float64(name, kind, with_states, options):
    """Output, last states and every gradient, in plain PyTorch: what sequences add to scans is exact."""
    assert compare(name, kind, with_states, "reference", torch.float64, **options) < 1e-12


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["batched", "packed"])
@pytest.mark.parametrize("with_states", [False, True])
def test_the_kernels_against_float64(interpreter, name, kind, with_states):
    options = {"bidirectional": True, "batch_first": with_states}
    assert compare(name, kind, with_states, "triton", torch.float32, interpreter, **options) < 3e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_states", [False, True])
def test_kernels_that_read_w_hh_at_each_step_against_float64(interpreter, monkeypatch, name, with_states):
    monkeypatch.setattr(streamed_scans, "runs", lambda *_: True)
    options = {"bidirectional": True, "batch_first": with_states}
    assert compare(name, "packed", with_states, "triton", torch.float32, interpreter, **options) < 3e-6


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("hidden", [64, 96, 128, 192, 256])
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous")  # torch's own, in bfloat16
def test_the_kernels_in_16_bits_err_at_most_twice_as_much_as_cudnn(name, hidden):
    """With W_hh in registers, too: output, last states, every gradient."""
    theirs, layer = pair(name, 24, hidden, bidirectional=True, implementation="triton")
    x = torch.randn(37, 19, 24, device="cuda")
    solved = []
    for network, dtype in ((theirs, torch.float64), (copy.deepcopy(theirs), torch.bfloat16), (layer, torch.bfloat16)):
        leaf = x.to(dtype).requires_grad_()
        solved.append(solve(network.to("cuda", dtype), leaf, None, [leaf]))
    for expected, cudnn, kernels in zip(*solved, strict=True):
        assert worst([kernels], [expected]) <= 2 * worst([cudnn], [expected]) + torch.finfo(torch.bfloat16).eps


def test_one_step_and_sequences_of_one_length(interpreter):
    theirs, layer = pair("LSTM", 5, 20, implementation="triton", bidirectional=True)
    theirs, layer = theirs.to(interpreter), layer.to(interpreter)
    x = torch.randn(1, 2, 5, device=interpreter)
    packed = pack_sequence([torch.randn(3, 5, device=interpreter) for _ in range(2)])
    with tf32(False):  # which cuDNN uses by default
        for given in (x, packed):
            torch.testing.assert_close(tensors(layer(given)), tensors(theirs(given)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["triton", "reference"])
def test_a_batch_without_sequences(interpreter, implementation):
    _, layer = pair("LSTM", 5, 20, implementation=implementation)
    x = torch.empty(4, 0, 5, device=interpreter, requires_grad=True)
    out, (h, c) = layer.to(interpreter)(x)
    assert (out.shape, h.shape, c.shape) == ((4, 0, 20), (1, 0, 20), (1, 0, 20))
    (out.sum() + c.sum()).backward()
    assert x.grad.shape == x.shape
    assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in layer.parameters())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("implementation", ["triton", "reference", "auto"])
def test_sequences_without_steps_are_refused_as_torch_does(interpreter, implementation, batch_first):
    _, layer = pair("GRU", 5, 20, implementation=implementation, batch_first=batch_first)
    x = torch.empty((2, 0, 5) if batch_first else (0, 2, 5), device=interpreter)
    with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0"):
        layer.to(interpreter)(x)


def test_on_cuda_auto_takes_the_kernels_only_where_they_were_measured_to_be_faster(monkeypatch):
    x = torch.empty(32, 60, 40, dtype=torch.bfloat16, device="meta")
    rows = [measured.Problems("lstm", "bfloat16", False, hidden=(33, 64), sequences=(16, 32))]
    monkeypatch.setattr(measured, "KERNELS_FASTER", rows)
    with torch.no_grad():
        assert measured.are_kernels_faster(x, 32, 64, "lstm")
        for sequences, hidden, cell in ((33, 64, "lstm"), (15, 64, "lstm"), (32, 32, "lstm"), (32, 64, "gru")):
            assert not measured.are_kernels_faster(x, sequences, hidden, cell)
        for dtype in (torch.float16, torch.float32):
            assert not measured.are_kernels_faster(x.to(dtype), 32, 64, "lstm")
    assert not measured.are_kernels_faster(x, 32, 64, "lstm")


def test_a_compiler_follows_the_table_for_any_number_of_sequences(monkeypatch):
    row = measured.Problems("lstm", "float32", False, hidden=(64, 64), sequences=(3, 8))
    monkeypatch.setattr(measured, "KERNELS_FASTER", (row,))
    compiled = torch.compile(
        lambda x: x + measured.are_kernels_faster(x, x.shape[0], 64, "lstm"),
        fullgraph=True,
        backend="eager",
        dynamic=True,
    )
    with torch.no_grad():
        assert [compiled(torch.zeros(n, 2)).any().item() for n in (2, 3, 5, 8, 9)] == [False, True, True, True, False]


def test_float32_with_tf32_has_measurements_of_its_own(monkeypatch):
    x = torch.empty(32, 60, 40, device="meta")
    monkeypatch.setattr(
        measured, "KERNELS_FASTER", [measured.Problems("lstm", "tf32", True, hidden=(1, 64), sequences=(1, 32))]
    )
    for allowed in (False, True):
        with tf32(allowed):
            assert measured.are_kernels_faster(x, 32, 64, "lstm") is allowed


@pytest.mark.gpu
def test_on_cuda_auto_without_a_measurement_is_cudnn_to_the_bit(monkeypatch):
    monkeypatch.setattr(measured, "KERNELS_FASTER", ())
    theirs, layer = (module.cuda() for module in pair("LSTM", 24, 64, 2, bidirectional=True))
    x = torch.randn(7, 5, 24, device="cuda")
    assert all(torch.equal(a, b) for a, b in zip(tensors(layer(x)), tensors(theirs(x)), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_on_a_cpu_it_is_torchs_function_to_the_bit(name):
    theirs, layer = pair(name, 5, 7, 2, dropout=0.5, bidirectional=True)
    x = torch.randn(4, 3, 5)
    for training in (False, True):
        results = []
        for network in (theirs.train(training), layer.train(training)):
            torch.manual_seed(3)
            results.append(tensors(network(x)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_dropout_stands_between_the_layers_and_only_in_training():
    _, layer = pair("LSTM", 5, 7, 2, dropout=1.0, implementation="reference")
    x = torch.randn(4, 3, 5)
    out, _ = layer(x)
    torch.testing.assert_close(out[:, 0], out[:, 1])  # the second layer sees zeros
    out, _ = layer.eval()(x)
    assert (out[:, 0] - out[:, 1]).abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_parameters_names_and_the_representation_are_torchs(name):
    theirs, layer = pair(name, 5, 7, 3, bias=False, batch_first=True, bidirectional=True)
    assert list(layer.state_dict()) == list(theirs.state_dict())
    assert [p.shape for p in layer.parameters()] == [p.shape for p in theirs.parameters()]
    assert repr(layer) == repr(theirs)
    assert isinstance(layer, nn.RNNBase)
    layer.flatten_parameters()


@pytest.mark.parametrize("name", NAMES)
def test_starting_weights_are_torchs(name):
    torch.manual_seed(0)
    expected = getattr(nn, name)(5, 7, 2).state_dict()
    torch.manual_seed(0)
    state = getattr(ours, name)(5, 7, 2).state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_relu_runs_torchs_function():
    theirs, layer = pair("RNN", 5, 7, nonlinearity="relu", implementation="reference")
    x = torch.randn(4, 3, 5)
    assert torch.equal(layer(x)[0], theirs(x)[0])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: ours.LSTM(5, 7, proj_size=3), ConfigError, "projections"),
        (lambda: ours.GRU(5, 7, proj_size=3), ValueError, "not of GRU"),
        (lambda: ours.GRU(5, 7, implementation="sycl"), ConfigError, "sycl"),
        (lambda: ours.RNN(5, 7, nonlinearity="gelu"), ValueError, "gelu"),
        (lambda: ours.LSTM(5, 7, implementation="reference")(torch.zeros(2, 2, 6)), RuntimeError, "input.size"),
        (lambda: ours.LSTM(5, 7, implementation="reference")(torch.zeros(2, 2, 2, 5)), ValueError, "2D or 3D"),
        (
            lambda: ours.LSTM(5, 7, implementation="reference")(torch.zeros(4, 2, 5), (torch.zeros(1, 3, 7),) * 2),
            RuntimeError,
            r"Expected hidden\[0\] size",
        ),
        (
            lambda: ours.GRU(5, 7, implementation="reference")(torch.zeros(4, 2, 5), torch.zeros(1, 7)),
            RuntimeError,
            "3-D",
        ),
        (
            lambda: ours.GRU(5, 7, implementation="reference")(torch.zeros(4, 2, 5), torch.zeros(1, 2, 7).double()),
            RuntimeError,
            "input's dtype, got torch.float64",
        ),
        (
            lambda: ours.GRU(5, 7, implementation="reference")(torch.zeros(4, 2, 5), torch.zeros(1, 2, 7).to("meta")),
            RuntimeError,
            "input's device, got meta",
        ),
        (
            lambda: ours.LSTM(5, 7, implementation="reference")(torch.zeros(4, 2, 5), (torch.zeros(1, 2, 7),) * 3),
            TypeError,
            "a pair of tensors .h, c., got a tuple of Tensor, Tensor, Tensor",
        ),
        (
            lambda: ours.LSTM(5, 7, implementation="reference")(torch.zeros(4, 2, 5), torch.zeros(2, 1, 2, 7)),
            TypeError,
            "a pair of tensors .h, c., got Tensor",
        ),
        (
            lambda: ours.GRU(5, 7, implementation="reference")(torch.zeros(4, 2, 5), (torch.zeros(1, 2, 7),)),
            TypeError,
            "one tensor h, got a tuple of Tensor",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_double_backward_is_refused_by_the_kernels_and_works_in_plain_pytorch(interpreter):
    _, layer = pair("LSTM", 5, 20, implementation="triton")
    x = torch.randn(2, 1, 5, requires_grad=True, device=interpreter)
    layer.to(interpreter)
    out = layer(x)[0].square().sum()
    with pytest.raises(ImplementationError, match="second derivative"):
        torch.autograd.grad(out, x, create_graph=True)
    layer.set_implementation("reference")
    (grad,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
    assert torch.autograd.grad(grad.sum(), x)[0].abs().sum() > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch registers its formulas with it
def test_forward_derivatives_are_those_of_plain_pytorch():
    _, layer = pair("GRU", 5, 7, implementation="reference")
    x, tangent = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    _, derivative = torch.func.jvp(lambda x: layer(x)[0], (x,), (tangent,))
    h = 1e-3
    expected = (layer(x + h * tangent)[0] - layer(x - h * tangent)[0]) / (2 * h)
    torch.testing.assert_close(derivative, expected, rtol=1e-2, atol=1e-3)


def test_hidden_sizes_of_the_two_directions_do_not_mix():
    """A backward scan's last state is that of the first step."""
    _, layer = pair("LSTM", 5, 7, bidirectional=True, implementation="reference")
    x = torch.randn(4, 3, 5)
    out, (h, _) = layer(x)
    assert torch.equal(h[0], out[-1, :, :7])
    assert torch.equal(h[1], out[0, :, 7:])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_shapes_alone_are_answered_on_the_meta_device(kind: str) -> None:
    with torch.device("meta"):
        layer, x = getattr(ours, kind)(6, 5, bidirectional=True, batch_first=True), torch.empty(3, 7, 6)
    assert layer(x)[0].shape == (3, 7, 10)


@pytest.mark.parametrize("kind", ["batched", "unbatched", "packed"])
@pytest.mark.parametrize("with_states", [False, True])
def test_hidden_units_that_are_padded_change_nothing(interpreter, monkeypatch, kind, with_states):
    """Output, last states and every gradient: the kernels run with 24 units, of which 20 are the layer's."""
    monkeypatch.setattr(scan_kernels, "padded_hidden", lambda *_: 24)
    options = {"bidirectional": True, "batch_first": with_states}
    assert compare("LSTM", kind, with_states, "triton", torch.float32, interpreter, **options) < 3e-6
