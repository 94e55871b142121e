"""CUDA graphs of an optimized model: which shapes get one, when they are outdated, and that no two calls mix."""

import copy
import threading

import pytest
import torch
from torch import nn

import sequencer2d
from sequencer2d.errors import ConfigError
from sequencer2d.models.graph_table import IN_A_ROW, SIGHTINGS_CROWDED, GraphTable
from sequencer2d.models.graphs import Weights
from tests.models.small import randomize, small_model

SIZES = {"depths": (2, 2), "dims": (192, 384), "hidden_dims": (48, 96), "patch_sizes": (7, 2)}


CHANGES = {
    "move": lambda model: model.to(torch.float64),
    "assign": lambda model: model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True),
    "data": lambda model: setattr(model.head.fc.weight, "data", model.head.fc.weight.data.clone()),
    "layer": lambda model: setattr(model.head, "fc", nn.Linear(32, 5)),
    "parameter": lambda model: setattr(model.head.fc, "bias", nn.Parameter(torch.zeros(5))),
    "storage": lambda model: model.head.fc.weight.set_(torch.zeros(5, 32)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_were_replaced_or_moved_are_noticed(change):
    model = small_model().requires_grad_(False)
    weights = Weights(model)
    assert weights.are_in_place()
    CHANGES[change](model)
    assert not weights.are_in_place()
    assert Weights(model).are_in_place()


def test_new_values_in_the_same_place_are_no_change():
    model = small_model().requires_grad_(False)
    weights = Weights(model)
    model.load_state_dict({name: value * 2 for name, value in model.state_dict().items()})
    model.head.fc.weight.mul_(2)
    assert weights.are_in_place()


# What follows runs on a GPU alone.


def gpu_model(device="cuda", seed=0, **options):
    torch.manual_seed(seed)
    model = sequencer2d.create_model("sequencer2d_n", num_classes=40, **(SIZES | options))
    return randomize(model, seed).eval().to(device)


def gpu_images(*shape, seed=0, device="cuda"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def error(found, expected):
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def in_float64(fast, x):
    """What the weights of an optimized model give on the CPU without rounding to 16 bits."""
    return copy.deepcopy(fast.model).to("cpu", torch.float64)(x.to("cpu", torch.float64))


def captured(model, *images, **options):
    """An optimized model that has a graph for each of the images."""
    fast = sequencer2d.optimize(model, **options)
    for x in images:
        for _ in range(IN_A_ROW):
            fast(x)
    assert {batch for _, batch in fast._graphs._table._graphs} >= {len(x) for x in images}
    return fast


def fill_free_memory():
    """What was freed must not go on looking right."""
    blocks = [torch.full((1 << 20,), torch.nan, device="cuda", dtype=torch.bfloat16) for _ in range(64)]
    torch.cuda.synchronize()
    return blocks


@pytest.mark.gpu
@pytest.mark.parametrize(
    "change, is_changed",
    [
        (lambda fast: fast.cpu().cuda(), False),
        (lambda fast: fast.to(torch.float16), False),
        (lambda fast: fast.model.to(torch.float32).to(torch.bfloat16), False),
        (lambda fast: fast.load_state_dict({k: v * 1.2 for k, v in fast.state_dict().items()}, assign=True), True),
        (lambda fast: fast.load_state_dict({k: v * 1.2 for k, v in fast.state_dict().items()}), True),
        (lambda fast: fast.model.head.fc.weight.mul_(1.2), True),
    ],
    ids=["cpu and back", "float16", "inner model", "assign", "load", "in place"],
)
def test_on_a_gpu_graphs_follow_the_weights(change, is_changed):
    x = gpu_images(2, 3, 112, 112)
    fast = captured(gpu_model(), x, compile=False)
    exact = in_float64(fast, x)
    # The error that bfloat16 makes with these weights, and room for another order of summation. float16 holds the same
    # weights and makes a smaller one.
    budget = 2 * error(fast(x).cpu(), exact)
    change(fast)
    kept = fill_free_memory()
    after = [fast(x) for _ in range(3)]
    assert kept
    assert all(torch.equal(after[0], output) for output in after)
    assert (error(after[0].cpu(), exact) > budget) is is_changed
    eager = fast.model(x.to(fast.dtype))
    assert error(after[0], eager) < 1e-2


@pytest.mark.gpu
def test_on_a_gpu_shapes_whose_graphs_gave_way_are_right_and_captured_again():
    model, inputs = gpu_model(), [gpu_images(batch, 3, 56, 56) for batch in (1, 2, 3)]
    fast = captured(model, inputs[0])
    fast._graphs._table = GraphTable(2)
    with torch.no_grad():
        expected = [model(x) for x in inputs]
    for _ in range(3 * SIGHTINGS_CROWDED):
        for x, y in zip(inputs, expected, strict=True):
            assert error(fast(x), y) < 0.05
    assert len(fast._graphs) == 2


@pytest.mark.gpu
def test_on_a_gpu_copies_run_their_own_weights():
    x = gpu_images(2, 3, 56, 56)
    fast = captured(gpu_model(), x)
    expected = fast(x)
    other = copy.deepcopy(fast)
    other.load_state_dict({name: torch.zeros_like(value) for name, value in other.state_dict().items()})
    assert [float(other(x).abs().max()) for _ in range(3)] == [0.0] * 3
    assert torch.equal(fast(x), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(1, 3, 56, 56), (32, 3, 112, 112)], ids=["few rows", "many rows"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("compile", [True, False], ids=["compiled", "eager"])
def test_on_a_gpu_autocast_changes_nothing(shape, dtype, compile):
    model, x = gpu_model(), gpu_images(*shape)
    with torch.no_grad():
        expected = model(x)
    fast = captured(model, x, dtype=dtype, compile=compile)
    plain = sequencer2d.optimize(model, dtype=dtype, compile=compile, graph=False)
    outputs = [fast(x), plain(x)]
    for autocast in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", autocast):
            inside = [fast(x), plain(x)]
        for output, same in zip(inside, outputs, strict=True):
            assert output.dtype == dtype
            assert torch.equal(output, same)
            assert error(output, expected) < 0.05


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune"])
def test_on_a_gpu_every_mode_of_the_compiler_works_with_graphs(mode):
    model, inputs = gpu_model(), [gpu_images(2, 3, 56, 56, seed=seed) for seed in range(4)]
    fast = sequencer2d.optimize(model, compile=mode)
    outputs = [fast(x) for x in inputs]
    with torch.no_grad():
        assert all(error(y, model(x)) < 0.05 for x, y in zip(inputs, outputs, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("current", [0, 1])
def test_on_a_second_gpu_graphs_are_its_own(current):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    model = gpu_model("cuda:1")
    inputs = [gpu_images(1, 3, 56, 56, seed=seed, device="cuda:1") for seed in range(4)]
    with torch.cuda.device(current):
        fast = sequencer2d.optimize(model)
        outputs = [fast(x) for x in inputs]
        assert len(fast._graphs) == 1
        with torch.no_grad():
            assert all(error(y, model(x)) < 0.05 for x, y in zip(inputs, outputs, strict=True))
    assert not torch.equal(outputs[2], outputs[3])


@pytest.mark.gpu
@pytest.mark.parametrize("models", [1, 2])
def test_on_a_gpu_streams_do_not_mix(models):
    """One model, or two, replayed at once on two streams."""
    inputs = [gpu_images(16, 3, 112, 112, seed=seed) for seed in range(2)]
    fasts = [captured(gpu_model(seed=seed), inputs[0]) for seed in range(models)]
    fasts = [fasts[0], fasts[-1]]
    expected = [fast(x) for fast, x in zip(fasts, inputs, strict=True)]
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    for _ in range(200):
        outputs = []
        for fast, x, stream in zip(fasts, inputs, streams, strict=True):
            with torch.cuda.stream(stream):
                outputs.append(fast(x))
        torch.cuda.synchronize()
        assert all(torch.equal(*pair) for pair in zip(outputs, expected, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("has_own_stream", [False, True])
def test_on_a_gpu_threads_do_not_mix(has_own_stream):
    """Two threads run known shapes while a third brings new ones."""
    inputs = [gpu_images(16, 3, 112, 112, seed=seed) for seed in range(2)]
    fast = captured(gpu_model(), inputs[0])
    expected = [fast(x) for x in inputs]
    torch.cuda.synchronize()
    problems = []

    def work(index):
        stream = torch.cuda.Stream() if has_own_stream else torch.cuda.default_stream()
        try:
            with torch.cuda.stream(stream):
                for _ in range(200):
                    output = fast(inputs[index])
                    scratch = torch.empty(1 << 24, device="cuda")
                    stream.synchronize()
                    if not torch.equal(output, expected[index]):
                        problems.append("wrong")
                    del scratch
        except Exception as problem:
            problems.append(repr(problem))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for batch in (1, 2, 3):
        for _ in range(3):
            assert error(fast(inputs[0][:batch]), expected[0][:batch]) < 0.05
    for thread in threads:
        thread.join()
    assert not problems


@pytest.mark.gpu
def test_on_a_gpu_many_sizes_need_neither_many_compilations_nor_much_memory():
    fast = sequencer2d.optimize(gpu_model())
    sizes = [(1, 224, 224), (4, 224, 224), (1, 256, 192), (2, 200, 300), (1, 448, 448), (1, 500, 375), (4, 224, 336)]
    for batch, height, width in sizes:
        fast(gpu_images(batch, 3, height, width))
    torch.cuda.synchronize()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    memory = torch.cuda.memory_allocated()
    for batch in range(2, 12):
        for height, width in ((98, 98), (200, 333), (224, 160)):
            assert torch.isfinite(fast(gpu_images(batch, 3, height, width))).all()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= before + 4
    assert torch.cuda.memory_allocated() <= memory + (1 << 24)


@pytest.mark.gpu
def test_on_a_gpu_a_server_with_batches_of_1_to_32_replays_graphs():
    model = gpu_model()
    fast = sequencer2d.optimize(model)
    x = gpu_images(32, 3, 56, 56)
    with torch.no_grad():
        expected = model(x)
    for _ in range(3):
        for batch in range(1, 33):
            assert error(fast(x[:batch]), expected[:batch]) < 0.05
    assert 1 <= len(fast._graphs) <= 16


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_batches_that_are_padded_err_no_more_than_others(dtype):
    model = gpu_model()
    x = gpu_images(8, 3, 112, 112)
    fast = captured(model, x, dtype=dtype, compile=False)
    plain = sequencer2d.optimize(model, dtype=dtype, compile=False, graph=False)
    exact = in_float64(fast, x)
    fill_free_memory()
    for batch in (5, 7, 6, 4, 5):
        errors = [error(form(x[:batch]).cpu(), exact[:batch]) for form in (fast, plain)]
        assert errors[0] <= 2 * errors[1]
    assert len(fast._graphs) == 1


@pytest.mark.gpu
def test_on_a_gpu_outputs_of_any_structure_are_the_calls_own():
    model = gpu_model()
    maps = sequencer2d.create_model("sequencer2d_n", features_only=True, **SIZES).cuda().eval()
    fast = sequencer2d.optimize(maps, dtype=torch.float32)
    inputs = [gpu_images(2, 3, 56, 56, seed=seed) for seed in range(4)]
    outputs = [fast(x) for x in inputs]
    with torch.no_grad():
        for x, output in zip(inputs, outputs, strict=True):
            assert isinstance(output, list)
            assert all(error(y, z) < 1e-2 for y, z in zip(output, maps(x), strict=True))
    assert not captured(model, inputs[0])(inputs[0]).is_inference()


@pytest.mark.gpu
def test_on_a_gpu_a_call_in_a_capture_joins_it():
    model, x = gpu_model(), gpu_images(2, 3, 56, 56)
    fast = captured(model, x)
    expected = fast(x)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        output = fast(x)
    output.zero_()
    graph.replay()
    assert error(output, expected) < 1e-2


@pytest.mark.gpu
def test_on_a_gpu_a_model_that_waits_for_the_device_is_refused():
    model = gpu_model()
    model.head.drop = Waiting()
    fast = sequencer2d.optimize(model, compile=False)
    x = gpu_images(2, 3, 56, 56)
    fast(x)
    with pytest.raises(ConfigError, match="give graph=False"):
        fast(x)
    assert torch.isfinite(sequencer2d.optimize(model, compile=False, graph=False)(x)).all()


class Waiting(nn.Module):
    def forward(self, x):
        return x if float(x.abs().max()) > 0 else x + 1
