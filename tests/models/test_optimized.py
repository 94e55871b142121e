"""What users do with an optimized model: other shapes, copies, moves, new weights, autocast, threads, exports."""

import copy
import functools
import io
import itertools
import pickle
import threading

import pytest
import torch
from timm.models.sequencer import Sequencer2d, Sequencer2dBlock
from torch import nn

import sequencer2d
from sequencer2d.errors import CheckpointError, ConfigError, InputError
from sequencer2d.models.compiling import MAX_SIZES, MODES, WholeModel
from tests.models.small import randomize, small_model
from tests.models.test_fusing import SMALL, assert_same_function, images

ONE_BLOCK = {"depths": (1,), "dims": (16,), "hidden_dims": (4,), "patch_sizes": (7,)}
SHAPES = [(2, 28, 28), (1, 28, 28), (3, 28, 28), (2, 28, 42), (5, 30, 44), (1, 57, 33), (1, 70, 28), (7, 28, 35)]


def count_compilations():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def assert_right(fast, model, x):
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)


def eager(**options):
    model = small_model(**options)
    return model, sequencer2d.optimize(model, compile=False)


@pytest.mark.parametrize("build", [small_model, lambda: randomize(Sequencer2d(**SMALL)).eval()], ids=["ours", "timm's"])
def test_a_series_of_shapes_is_compiled_a_few_times(build):
    """Once for each kind of layer; again for one image, and where images need padding."""
    model = build()
    fast = sequencer2d.optimize(model)
    counts = []
    for seed in (0, 1):
        for batch, height, width in SHAPES:
            x = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))
            assert_right(fast, model, x)
            counts.append(count_compilations())
    assert counts[2] == counts[1], "another batch size"
    assert counts[3] == counts[2], "another image size"
    assert counts[-1] == counts[len(SHAPES) - 1], "shapes that were seen"
    # A stem, a downsampling layer and blocks of two widths and more; for a batch and for one image.
    assert counts[-1] - counts[0] <= 10


@pytest.mark.parametrize("build", [small_model, lambda: randomize(Sequencer2d(**SMALL)).eval()], ids=["ours", "timm's"])
@pytest.mark.parametrize("sizes", [((28, 28), (30, 44), (57, 33)), ((57, 33), (28, 28), (41, 29))], ids=str)
def test_sizes_that_do_not_fit_are_right_after_those_that_do_and_before(build, sizes):
    """The first size that is compiled decides for later ones which conditions hold."""
    torch.compiler.reset()
    model = build()
    fast = sequencer2d.optimize(model)
    for batch, size in enumerate(sizes, start=2):
        assert_right(fast, model, torch.randn(batch, 3, *size))


def test_sizes_of_one_token_never_reach_the_compilers_limit(monkeypatch):
    """One image or more, one row or more, one column or more, and another dtype: up to 16 times code for a layer."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model = small_model(**ONE_BLOCK)
    fast, counts = sequencer2d.optimize(model), []
    for dtype in (torch.float32, torch.float64):
        for batch, height, width in itertools.product((1, 2), (7, 14), (7, 21)):
            before = count_compilations()
            assert_right(fast.to(dtype), model.to(dtype), torch.randn(batch, 3, height, width, dtype=dtype))
            counts.append(count_compilations() - before)
    assert all(counts), "past the limit nothing is compiled"


@pytest.mark.parametrize("options", [{"compile": False}, {}, {"whole": True}], ids=str)
def test_an_empty_batch_is_no_case_of_its_own(options):
    model = small_model(**ONE_BLOCK)
    fast = sequencer2d.optimize(model, **options)
    for batch in (0, 2, 0):
        x = torch.randn(batch, 3, 28, 28)
        assert_right(fast, model, x)
        assert fast(x).shape == (batch, 5)


class OwnBlock(Sequencer2dBlock):
    """Whose author may well run its layers in another order."""


def test_models_of_other_code_are_compiled_as_a_whole():
    one_block = {key: value[:1] if isinstance(value, tuple) else value for key, value in SMALL.items()}
    model = randomize(Sequencer2d(**one_block, block_layer=OwnBlock)).eval()
    fast = sequencer2d.optimize(model)
    assert isinstance(fast._run, WholeModel)
    assert_same_function(model, fast, images(28, 28))


def test_the_whole_form_takes_any_batch_and_many_sizes():
    model = small_model(**ONE_BLOCK)
    fast = sequencer2d.optimize(model, whole=True)
    assert_right(fast, model, images(28, 28))
    before = count_compilations()
    for batch in (3, 4, 7):
        assert_right(fast, model, torch.randn(batch, 3, 28, 28))
    assert count_compilations() == before
    backend = fast._run
    for width in range(21, 21 + 7 * (MAX_SIZES + 2), 7):
        backend._code_for((3, 28, width))
    assert len(backend._by_size) == MAX_SIZES


def test_a_deep_copy_runs_its_own_weights():
    model = small_model(**ONE_BLOCK)
    fast = sequencer2d.optimize(model)
    x = images(28, 28)
    expected = fast(x)
    other = copy.deepcopy(fast)
    assert torch.equal(other(x), expected)
    for value in other.state_dict().values():
        value.zero_()
    assert other(x).abs().max() == 0
    assert torch.equal(fast(x), expected)


def test_pickles_and_saved_files_run_as_before():
    model = small_model(**ONE_BLOCK)
    for fast in (sequencer2d.optimize(model), sequencer2d.optimize(model, compile=False)):
        x = images(28, 28)
        expected = fast(x)
        buffer = io.BytesIO()
        torch.save(fast, buffer)
        buffer.seek(0)
        for other in (pickle.loads(pickle.dumps(fast)), torch.load(buffer, weights_only=False)):
            assert torch.equal(other(x), expected)
            assert list(other.state_dict()) == list(fast.state_dict())


@pytest.mark.parametrize("compile", [True, False])
def test_another_dtype_is_that_of_weights_images_and_output(compile):
    model = small_model(**ONE_BLOCK)
    fast = sequencer2d.optimize(model, compile=compile)
    x = images(28, 28)
    fast(x)
    assert fast.to(torch.float64)(x).dtype == torch.float64
    assert fast.dtype == torch.float64
    if not compile:
        assert_same_function(model, fast.float(), x)
        assert nn.Sequential(fast).to(torch.bfloat16)(x).dtype == torch.bfloat16


def test_names_of_weights_are_listed_once():
    _, fast = eager()
    assert all(name.startswith("model.") for name in fast.state_dict())


@pytest.mark.parametrize("assign", [True, False])
def test_the_weights_of_another_optimized_model_can_be_loaded(assign):
    first, second = small_model(**ONE_BLOCK), randomize(small_model(**ONE_BLOCK), seed=7)
    fast = sequencer2d.optimize(first)
    x = images(28, 28)
    fast(x)
    fast.load_state_dict(sequencer2d.optimize(second, compile=False).state_dict(), assign=assign)
    assert_same_function(second, fast, x)


def test_other_weights_are_refused_in_one_line():
    model, fast = eager()
    before = copy.deepcopy(fast.state_dict())
    holder = nn.Sequential(fast)
    for load in (
        lambda: fast.load_state_dict(model.state_dict()),
        lambda: fast.load_state_dict(model.state_dict(), strict=False),
        lambda: fast.load_state_dict(eager(num_classes=3)[1].state_dict()),
        lambda: holder.load_state_dict({f"0.{name}": value for name, value in model.state_dict().items()}),
    ):
        with pytest.raises(CheckpointError, match="call optimize again") as caught:
            load()
        assert "\n" not in str(caught.value)
    halves = {name: value.half() for name, value in fast.state_dict().items()}
    with pytest.raises(CheckpointError, match="assign=False"):
        fast.load_state_dict(halves, assign=True)
    assert all(torch.equal(value, before[name]) for name, value in fast.state_dict().items())
    fast.load_state_dict(halves)
    assert fast.dtype == torch.float32


def test_training_a_model_around_it_leaves_it_in_eval_mode():
    _, fast = eager(drop_rate=0.5, drop_path_rate=0.5, proj_drop_rate=0.5)
    holder = nn.Sequential(fast, nn.Linear(5, 2)).train()
    assert not any(module.training for module in fast.modules())
    assert torch.equal(fast(images(28, 28)), fast.train()(images(28, 28)))
    holder(images(28, 28)).sum().backward()
    assert holder[1].weight.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compile", [True, False])
def test_autocast_changes_nothing(dtype, compile):
    fast = sequencer2d.optimize(small_model(**ONE_BLOCK), dtype=dtype, compile=compile)
    x = images(28, 28)
    expected = fast(x)
    before = count_compilations()
    for autocast in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", autocast):
            output = fast(x)
        assert output.dtype == dtype
        assert torch.equal(output, expected)
    assert count_compilations() == before


def test_the_callers_modes_change_nothing():
    fast = sequencer2d.optimize(small_model(**ONE_BLOCK))
    x = images(28, 28)
    expected = fast(x)
    before = count_compilations()
    with torch.no_grad():
        assert torch.equal(fast(x), expected)
    with torch.inference_mode():
        assert torch.equal(fast(x), expected)
        inside = x.clone()
        assert torch.equal(fast(inside), expected)
    assert torch.equal(fast(inside), expected)
    assert not fast(x).is_inference()
    assert count_compilations() == before


def test_threads_do_not_mix():
    """Four threads start together, so that the first calls compile at the same time."""
    model = small_model(**ONE_BLOCK)
    fast = sequencer2d.optimize(model)
    inputs = [torch.randn(batch, 3, 28, 28) for batch in (1, 2, 3, 4)]
    found = [None] * 4
    start = threading.Barrier(4)

    def work(index):
        start.wait()
        found[index] = [fast(inputs[index]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        for x, outputs in zip(inputs, found, strict=True):
            for output in outputs:
                torch.testing.assert_close(output, model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compile", [True, False])
def test_it_can_be_a_part_of_what_is_compiled_or_exported(compile):
    model = small_model(**ONE_BLOCK)
    fast = sequencer2d.optimize(model, compile=compile)
    x = images(28, 28)
    outer = torch.compile(lambda x: fast(x) * 2, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(outer(x), model(x) * 2)
        program = torch.export.export(fast, (x,))
        torch.testing.assert_close(program.module()(x), model(x))


def test_images_elsewhere_are_refused():
    _, fast = eager()
    with pytest.raises(InputError, match=r"images are on meta, the optimized model on cpu"):
        fast(torch.zeros(1, 3, 28, 28, device="meta"))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (torch.zeros(1, 1, 28, 28), "1 channels"),
        (torch.zeros(1, 3, 6, 28), "too small"),
        (torch.zeros(3, 28, 28), "4 axes"),
    ],
)
def test_compiled_models_refuse_images_in_the_same_words(wrong, message):
    with pytest.raises(InputError, match=message):
        sequencer2d.optimize(small_model(**ONE_BLOCK))(wrong)


def test_choices_that_do_not_exist_are_refused():
    model = small_model(**ONE_BLOCK)
    with pytest.raises(ConfigError, match=r"compile='fastest'; give True, False or a mode"):
        sequencer2d.optimize(model, compile="fastest")
    with pytest.raises(ConfigError, match=r"dtype=torch.int8; choose one of"):
        sequencer2d.optimize(model, dtype=torch.int8)
    model.head.to("meta")
    with pytest.raises(ConfigError, match=r"the model is on cpu, meta"):
        sequencer2d.optimize(model)


def test_the_modes_are_those_of_the_compiler():
    assert set(torch._inductor.list_mode_options()) - {"lite"} == set(MODES)
    for mode in MODES.values():
        assert mode is None or not torch._inductor.list_mode_options(mode).get("triton.cudagraphs")
    fast = sequencer2d.optimize(small_model(**ONE_BLOCK), compile="max-autotune")
    assert torch.isfinite(fast(images(28, 28))).all()


def test_one_model_on_many_devices_at_once_is_refused():
    _, fast = eager()
    with pytest.raises(ConfigError, match="once for each device"):
        fast._replicate_for_data_parallel()
