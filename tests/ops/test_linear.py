"""Matrix products with more in them: add_linear_ adds to a tensor in place, normed_linear has a norm before it."""

import copy

import pytest
import torch
import torch.nn.functional as F

import sequencer2d
from sequencer2d.models.inference import to_inference_form
from sequencer2d.ops import linear_kernels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
add_linear_ = torch.ops.sequencer2d.add_linear_


def operands(*shape, inner=5, outer=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sizes = ((*shape, outer), (*shape, inner), (outer, inner))
    return [torch.randn(*size, generator=generator, dtype=torch.float64).to(DEVICE, dtype) for size in sizes]


@pytest.mark.parametrize("shape", [(), (1,), (33,), (2, 3, 4), (0, 3, 4)], ids=str)
def test_add_linear_adds_the_product_in_place(shape):
    total, x, weight = operands(*shape)
    expected = total + x @ weight.T
    address = total.data_ptr()
    assert add_linear_(total, x, weight) is None
    assert total.data_ptr() == address
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_the_factors_may_have_any_strides():
    total, x, weight = operands(2, 3, 4)
    expected = total + x @ weight.T
    add_linear_(total, x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), weight.T.contiguous().T)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_a_view_is_written_through():
    _, x, weight = operands(2, 3, 4)
    flat = torch.zeros(24, 7, device=DEVICE, dtype=torch.float64)
    add_linear_(flat.view(2, 3, 4, 7), x, weight)
    torch.testing.assert_close(flat.view(2, 3, 4, 7), x @ weight.T, rtol=1e-12, atol=1e-12)


def test_a_sum_that_would_be_lost_in_a_copy_is_refused():
    total, x, weight = operands(2, 3, 4)
    with pytest.raises(RuntimeError, match="view"):
        add_linear_(total.transpose(0, 1), x.transpose(0, 1), weight)


def test_ten_runs_are_identical():
    totals = []
    for _ in range(10):
        total, x, weight = operands(33, inner=64, outer=48, dtype=torch.float32)
        add_linear_(total, x, weight)
        totals.append(total)
    assert all(torch.equal(total, totals[0]) for total in totals)


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)], ids=str)
def test_add_linear_keeps_what_it_promised_pytorch(shape):
    torch.library.opcheck(add_linear_, tuple(operands(*shape)))


@pytest.mark.gpu
def test_on_a_gpu_nothing_is_copied():
    """The vendor's workspace, at most 32 MiB, is all that a call may allocate; the sum is of 192 MiB."""
    total, x, weight = operands(1 << 18, inner=8, outer=384, dtype=torch.bfloat16)
    add_linear_(total, x, weight)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    add_linear_(total, x, weight)
    assert torch.cuda.max_memory_allocated() - before < total.nbytes / 2


# (tokens, channels, outputs): rows and columns that fill no tile, and inputs of one chunk and of several.
SMALL = [((1, 3, 5), 16, 8), ((2, 7, 7), 192, 136), ((70,), 384, 72)]


def small(*problem, seed=0):
    """x, shift, weight, bias in fp16 on the device, and the residual stream that the product adds to."""
    tokens, inner, outer = problem
    generator = torch.Generator().manual_seed(seed)
    sizes = ((*tokens, inner), (inner,), (outer, inner), (outer,), (*tokens, outer))
    x, shift, weight, bias, total = (torch.randn(*size, generator=generator) for size in sizes)
    values = (x * 3 + 1, shift, weight / inner**0.5, bias, total)
    on_device = [value.to(DEVICE, torch.float16) for value in values]
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()  # the weights must be older than the last launch
    return on_device


def exact_normed(x, shift, weight, bias):
    """The product of the layer norm in float64."""
    normed = F.layer_norm(x.double() - shift.double(), shift.shape, eps=1e-6)
    return F.linear(normed, weight.double(), bias.double())


def relative_error(value, expected):
    return ((value.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_a_norm_and_a_product_in_one_launch(problem, gelu, monkeypatch):
    x, shift, weight, bias, _ = small(*problem)
    launched = count_calls(monkeypatch, "launch_normed_linear")
    y = torch.ops.sequencer2d.normed_linear(x, shift, weight, bias, 1e-6, gelu)
    assert launched == [1]
    expected = exact_normed(x, shift, weight, bias)
    expected = F.gelu(expected, approximate="tanh") if gelu else expected
    # Beside fp16's own rounding, that of the normed values.
    assert relative_error(y, expected) < 5e-4


@pytest.mark.parametrize("problem", SMALL, ids=str)
def test_few_rows_are_added_in_one_launch(problem, monkeypatch):
    x, _, weight, _, total = small(*problem)
    launched = count_calls(monkeypatch, "launch_add_linear")
    expected = total.double() + x.double() @ weight.double().T
    add_linear_(total, x, weight)
    assert launched == [1]
    assert relative_error(total, expected) < 3e-4


def test_in_other_cases_the_vendors_products_run(monkeypatch):
    normed = count_calls(monkeypatch, "launch_normed_linear")
    added = count_calls(monkeypatch, "launch_add_linear")
    normed_linear = torch.ops.sequencer2d.normed_linear
    for tokens, inner, dtype in [((2, 3), 24, torch.float16), ((5,), 32, torch.float32), ((0, 3), 400, torch.float16)]:
        x, shift, weight, bias, total = (value.to(dtype) for value in small(tokens, inner, 8))
        # A rounding of the normed values beside that of the result.
        limit = 4 * torch.finfo(dtype).eps
        if x.numel():
            assert (
                relative_error(normed_linear(x, shift, weight, bias, 1e-6, False), exact_normed(x, shift, weight, bias))
                < limit
            )
        if inner % 16 or dtype is torch.float32:
            expected = total.double() + x.double() @ weight.double().T
            add_linear_(total, x, weight)
            assert relative_error(total, expected) < limit
    assert (normed, added) == ([], [])


def test_operands_of_any_strides_have_the_same_results():
    x, shift, weight, bias, total = small((6,), 64, 32)
    expected = torch.ops.sequencer2d.normed_linear(x, shift, weight, bias, 1e-6, False)
    x, shift, bias = (torch.stack((value, value * 0), -1)[..., 0] for value in (x, shift, bias))
    strided = weight.T.contiguous().T
    assert torch.equal(torch.ops.sequencer2d.normed_linear(x, shift, strided, bias, 1e-6, False), expected)
    other = total.clone()
    add_linear_(total, x.contiguous(), weight)
    add_linear_(other, x, strided)
    assert torch.equal(total, other)


def test_an_input_without_rows_has_an_output_without_rows():
    x, shift, weight, bias, total = small((0, 3), 16, 8)
    assert torch.ops.sequencer2d.normed_linear(x, shift, weight, bias, 1e-6, True).shape == (0, 3, 8)
    add_linear_(total, x, weight)


def test_far_values_and_constant_rows_stay_finite():
    x, shift, weight, bias, _ = small((70,), 64, 24)
    x[3], x[5] = 6e4, shift
    y = torch.ops.sequencer2d.normed_linear(x, shift, weight, bias, 1e-6, True)
    assert y.isfinite().all()
    assert relative_error(y[5], F.gelu(bias.double(), approximate="tanh")) < 5e-4


def test_normed_linear_keeps_what_it_promised_pytorch():
    x, shift, weight, bias, _ = small((2, 3), 32, 24)
    torch.library.opcheck(torch.ops.sequencer2d.normed_linear, (x, shift, weight, bias, 1e-6, True))


def test_blocks_of_few_tokens_take_them(monkeypatch):
    """In one launch each: of two blocks every norm with the product behind it, every sum with the product before it."""
    model = sequencer2d.create_model(
        "sequencer2d_s", depths=(2,), dims=(32,), hidden_dims=(16,), patch_sizes=(7,), num_classes=40
    ).to(DEVICE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.set_implementation("triton")
    converted = to_inference_form(copy.deepcopy(model).eval().requires_grad_(False), in_place=True).half()
    x = torch.randn(2, 3, 14, 21, device=DEVICE)
    with torch.inference_mode():
        normed = count_calls(monkeypatch, "launch_normed_linear")
        added = count_calls(monkeypatch, "launch_add_linear")
        logits = converted(x.half())
        assert (len(normed), len(added)) == (4, 4)
        model.set_implementation("reference")
        expected = model.double().eval()(x.double())
        few = relative_error(logits, expected)
        monkeypatch.setattr(linear_kernels, "is_small_batch", lambda stream, x: False)
        others = relative_error(converted(x.half()), expected)
    assert (len(normed), len(added)) == (4, 4)
    assert few <= 2 * others < 0.01


def count_calls(monkeypatch, name):
    """A list with a 1 for every launch through a function of the kernels' module."""
    module = pytest.importorskip(
        "sequencer2d.ops.kernels.triton_linear_launch", reason="Triton is too old", exc_type=ImportError
    )
    launch, calls = getattr(module, name), []
    monkeypatch.setattr(module, name, lambda *args, **options: (calls.append(1), launch(*args, **options))[1])
    return calls


@pytest.mark.gpu
def test_on_a_gpu_launches_that_start_early_wait_for_what_they_read():
    """Each writes what the next one reads; with the host waiting after each, results are the same to the bit."""
    x, shift, weight, bias, _ = (value.bfloat16() for value in small((1, 16, 16), 384, 384))
    gates, weight_hh = (value.bfloat16() for value in (small((1, 16, 16), 384, 1536)[2], small((4,), 96, 384)[2]))
    recurrent, biases = weight_hh.expand(4, 384, 96).contiguous(), bias.repeat(4)
    torch.cuda.synchronize()

    def chain(wait):
        stream = x.clone()
        for _ in range(20):
            mixed = torch.ops.sequencer2d.normed_linear(stream, shift, gates, biases, 1e-6, False)
            wait()
            hidden = torch.ops.sequencer2d.scan(
                mixed, recurrent, None, [0, 1, 2, 3], "lstm", False, weight_is_final=True
            )[0]
            wait()
            add_linear_(stream, hidden, weight)
            wait()
            expanded = torch.ops.sequencer2d.normed_linear(stream, shift, weight, bias, 1e-6, True)
            wait()
            add_linear_(stream, expanded, weight)
            wait()
        return stream

    expected = chain(torch.cuda.synchronize)
    assert expected.isfinite().all()
    for _ in range(10):
        assert torch.equal(chain(lambda: None), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "graph"])
def test_on_a_gpu_weights_written_right_before_an_early_launch_are_the_new_ones(captured):
    """What writes them lets no launch start before it has ended."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    randn = lambda *size: torch.randn(*size, device=DEVICE, generator=generator).bfloat16()  # noqa: E731
    gates, x, zeros = randn(1, 16, 16, 16 * 96), randn(1, 16, 16, 384), torch.zeros(1536, device=DEVICE).bfloat16()
    recurrent, matrices = ([randn(*size) / 10 for _ in range(2)] for size in ((4, 384, 96), (1536, 384)))
    weight, matrix, sources = recurrent[0].clone(), matrices[0].clone(), [recurrent[0].clone(), matrices[0].clone()]

    def scan(weight, weight_is_final):
        return torch.ops.sequencer2d.scan(gates, weight, None, [0, 1, 2, 3], "lstm", False, weight_is_final)[0]

    def product(matrix):
        y = torch.ops.sequencer2d.normed_linear(x, zeros[:384], matrix, zeros, 1e-6, False)
        torch.cuda.synchronize()
        return y

    expected = [(scan(w, False), product(m)) for w, m in zip(recurrent, matrices, strict=True)]

    def step():
        weight.copy_(sources[0])
        hidden = scan(weight, True)
        matrix.copy_(sources[1])
        return hidden, torch.ops.sequencer2d.normed_linear(x, zeros[:384], matrix, zeros, 1e-6, False)

    step()
    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = step()
    for i in range(500):
        sources[0].copy_(recurrent[i % 2])
        sources[1].copy_(matrices[i % 2])
        if captured:
            graph.replay()
        else:
            results = step()
        assert all(torch.equal(*pair) for pair in zip(results, expected[i % 2], strict=True)), i


@pytest.mark.parametrize(
    ("inputs", "tile", "warps", "chunk"),
    [(16, 128, 4, 16), (96, 128, 4, 32), (192, 128, 4, 64), (208, 64, 8, 16), (256, 64, 8, 128), (384, 64, 8, 128)],
)
def test_launches_of_the_products_have_the_sizes_that_were_measured(inputs, tile, warps, chunk, monkeypatch):
    """Up to 192 inputs a tile has 128 columns; the most that one has inputs fit into a chunk of 128."""
    launch = pytest.importorskip(
        "sequencer2d.ops.kernels.triton_linear_launch", reason="Triton is too old", exc_type=ImportError
    )
    rows, outputs, launched = 130, 272, []
    monkeypatch.setattr(launch.prepared, "repeat", lambda *_: False)
    monkeypatch.setattr(launch.prepared, "keep", lambda *_: None)
    monkeypatch.setattr(launch.launching, "run_kernel", lambda kernel, grid, *_, **o: launched.append((grid, o)))
    x, weight, bias = torch.zeros(rows, inputs), torch.zeros(outputs, inputs), torch.zeros(outputs)
    options = {"gelu": True, "approximate_tanh": False, "early_start": False}
    launch.launch_normed_linear(x, x[0], weight, bias, 1e-6, **options)
    launch.launch_add_linear(torch.zeros(rows, outputs), x, weight, early_start=True)
    assert launched == [
        (
            (-(-outputs // tile), 3),
            {
                "K": inputs, "KC": chunk, "NK": inputs // chunk, "R": 64, "T": tile, "GELU": True,
                "APPROX_TANH": False, "EARLY_START": False, "num_warps": warps,
            },
        ),
        (
            (9, 3),
            {
                "K": inputs, "KC": chunk, "NK": inputs // chunk, "R": 64, "T": 32, "STAGES": 4, "EARLY_START": True,
                "CACHE_LINES": {16: 1, 96: 2, 192: 4, 208: 4, 256: 4, 384: 8}[inputs], "num_warps": 4,
                "launch_pdl": True,
            },
        ),
    ]  # fmt: skip
