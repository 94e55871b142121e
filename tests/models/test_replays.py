"""Batches of any size through recordings of a few: here recordings are plain calls, so that it runs on a CPU."""

import copy
import functools
import random

import pytest
import torch
from timm.models.sequencer import Sequencer2d
from torch import nn

import sequencer2d
from sequencer2d.models.compiling import Form, form_of
from sequencer2d.models.features import Sequencer2DFeatures
from sequencer2d.models.graph_table import first_images, own_memory
from sequencer2d.models.graphs import Replays
from sequencer2d.models.inference import to_inference_form, treats_images_apart
from tests.models.small import randomize, small_model
from tests.models.test_fusing import SMALL


class Calls(Replays):
    """Records the input that a graph would read, and calls the model for each replay."""

    def _record(self, images):
        self._run(images)  # before a graph is captured, everything is compiled
        return images.clone()

    def _replay(self, recording, images):
        recording[: len(images)] = images
        return own_memory(first_images(self._run(recording), len(images), len(recording)))


def replays(model, dtype=torch.float64, compile=False):
    converted = copy.deepcopy(model).eval().requires_grad_(False)
    if dtype is torch.float64:
        converted.double()
    if isinstance(model, Sequencer2d):
        sequencer2d.fuse(converted)
    network = to_inference_form(converted, in_place=True).to(dtype)
    return Calls(form_of(network, compile, whole=False), network, dtype, treats_images_apart(network))


MODELS = {
    "ours": small_model,
    "timm's": lambda: randomize(Sequencer2d(**SMALL)).eval(),
    "maps": lambda: Sequencer2DFeatures(small_model()),
    "position embedding": lambda: small_model(position_embedding=True, img_size=28),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_outputs_of_a_server_are_those_without_padding(build):
    """Images of a call are new, so what an earlier one left in the padding must not matter."""
    model = build()
    run, draw = replays(model), random.Random(0)
    assert run._pads
    reference = copy.deepcopy(model).double()
    for _ in range(40):
        images = torch.randn(draw.randint(1, 12), 3, 28, 28, dtype=torch.float64)
        output = run(images)
        with torch.no_grad():
            expected = reference(images)
        for found, value in zip(*map(_list, (output, expected)), strict=True):
            assert found.shape == value.shape
            torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)
    assert 3 <= len(run) <= 9


def _list(output):
    return output if isinstance(output, list) else [output]


def test_in_float32_padding_changes_no_more_than_another_batch_does():
    model = small_model()
    run = replays(model, torch.float32)
    images = torch.randn(12, 3, 28, 28)
    for _ in range(3):
        run(images)
    alone = Form(run._model)
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        expected = exact(images[:7].double())
    padded, unpadded = run(images[:7]), alone(images[:7])
    errors = [float((found - expected).abs().max()) for found in (padded, unpadded)]
    assert errors[0] <= 2 * errors[1]


def test_outputs_stay_when_later_calls_come():
    run = replays(small_model())
    images = torch.randn(4, 3, 28, 28, dtype=torch.float64)
    outputs = [run(images[:batch]) for batch in (4, 4, 3, 4, 3)]
    kept = [output.clone() for output in outputs]
    run(torch.randn(3, 3, 28, 28, dtype=torch.float64))
    assert all(torch.equal(*pair) for pair in zip(outputs, kept, strict=True))


class Centered(nn.Module):
    """A head that depends on the other images of the batch."""

    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize("change", ["layer", "hook", "class"])
def test_models_whose_images_may_depend_on_each_other_are_not_padded(change):
    model = small_model()
    if change == "layer":
        model.head.fc = nn.Sequential(model.head.fc, Centered())
    elif change == "hook":
        model.norm.register_forward_hook(lambda module, arguments, output: output - output.mean(0))
    else:
        model.__class__ = type("Mine", (type(model),), {})
    run = replays(model)
    assert not run._pads
    reference = copy.deepcopy(model).double()
    for batch in (6, 6, 6, 5, 5, 4, 3):
        images = torch.randn(batch, 3, 28, 28, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(run(images), reference(images), rtol=1e-10, atol=1e-12)


class WithNumber(type(small_model())):
    """Whose output is no batch of tensors alone."""

    def forward(self, x):
        logits = super().forward(x)
        return logits, logits.sum(), logits.T


def test_outputs_of_unknown_models_are_returned_as_they_are():
    model = small_model()
    model.__class__ = WithNumber
    run, images = replays(model), torch.randn(2, 3, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        expected = copy.deepcopy(model).double()(images)
    for _ in range(4):
        for found, value in zip(run(images), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-12)
    assert len(run) == 1


@pytest.fixture
def without_code(monkeypatch):
    """Everything of the compiler but the code that it writes, which takes longest."""
    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch.compiler.reset()


def count_compilations():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("without_code")
@pytest.mark.parametrize("first", [16, 1])
def test_after_the_first_call_no_batch_compiles_until_it_comes_in_a_row(first, monkeypatch):
    """With kernels of small batches, as on a GPU: up to 2,000 values of a layer's input."""
    monkeypatch.setattr("sequencer2d.models.compiling.max_small_batch", lambda *device: 2000)
    model = small_model()
    run = replays(model, torch.float32, compile=True)

    def call(batch):
        images = torch.randn(batch, 3, 28, 28)
        with torch.no_grad():
            torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-5)

    call(first)
    known = count_compilations()
    for batch in (2, 3, 1, 32, 5, 7, 1, 4, 2, 12, 31, 1, 2, 9, 10):
        call(batch)
    assert count_compilations() == known
    for _ in range(6):
        call(1)
    single = count_compilations()
    assert (single > known) is (first == 16)
    for batch in (1, 2, 5, 1, 30):
        call(batch)
    assert count_compilations() == single


@pytest.mark.usefixtures("without_code")
def test_images_of_a_folder_in_their_own_aspect_ratios_soon_compile_nothing():
    model = small_model()
    run, draw = replays(model, torch.float32, compile=True), random.Random(0)
    counts = []
    for _ in range(20):
        images = torch.randn(draw.choice((1, 2)), 3, draw.randint(30, 80), draw.randint(30, 80))
        with torch.no_grad():
            torch.testing.assert_close(run(images), model(images), rtol=1e-4, atol=1e-5)
        counts.append(count_compilations())
    assert counts[-1] == counts[9]
    assert len(run) == 0
