"""What is known of compiled code: which batches have it, for how many image sizes, and which go first."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sequencer2d.errors import ConfigError
from sequencer2d.models import compiling
from sequencer2d.models.compiling import MAX_KNOWN_SIZES, MAX_SIZES, Form, Regions, WholeModel, compiler_mode, form_of

CPU, SIZE = torch.device("cpu"), (3, 8, 8)


@pytest.fixture
def small_up_to_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of an input up to which kernels of small batches take it."""
    monkeypatch.setattr(compiling, "max_small_batch", lambda *device: 1000)


def seen(*layers: tuple[int, ...]) -> Regions:
    """A model whose layers had inputs of these sizes, without the batch, for images of `SIZE`."""
    kinds = [compiling._AnySize(None) for _ in layers]
    regions = Regions(nn.Identity())
    regions._visits[SIZE] = {
        compiling._Visit(kind, torch.float32, CPU, sizes) for kind, sizes in zip(kinds, layers, strict=True)
    }
    return regions


def learn(regions: Regions, batch: int) -> None:
    """The layers have code for a batch."""
    for visit in regions._visits[SIZE]:
        visit.kind._known.add(compiling._pattern(visit.dtype, visit.device, (batch, *visit.sizes)))


def test_small_batches_are_padded_to_the_first_large_one_with_code(small_up_to_1000: None) -> None:
    """Layers of 100 and 125 numbers an image: from 11 images on no layer is small, and 16 is the next batch."""
    regions = seen((10, 10), (5, 25))
    shape = (2, *SIZE)
    assert (regions.ready_batch(shape), regions.missing_batch(shape)) == (2, 16)
    learn(regions, 16)
    assert (regions.ready_batch(shape), regions.missing_batch(shape)) == (16, None)
    assert [regions.ready_batch((batch, *SIZE)) for batch in (1, 8, 11, 16, 17)] == [16, 16, 11, 16, 17]
    learn(regions, 3)
    assert [regions.ready_batch((batch, *SIZE)) for batch in (1, 2, 8)] == [2, 2, 8], "one image is a case of its own"
    assert regions.missing_batch((16, *SIZE)) is None


def test_a_batch_is_general_if_no_layer_is_small(small_up_to_1000: None) -> None:
    assert seen((500,))._general_batch((1, *SIZE)) == 3, "two images have 1000 numbers, which is small"
    assert seen((501,))._general_batch((1, *SIZE)) == 2
    assert seen((501,), (100,))._general_batch((1, *SIZE)) == 16


def test_nothing_is_known_of_other_image_sizes(small_up_to_1000: None) -> None:
    regions = seen((10, 10))
    learn(regions, 16)
    assert regions.ready_batch((2, 3, 8, 9)) == 2
    assert regions.missing_batch((2, 3, 8, 9)) is None
    assert (Form(nn.Identity()).ready_batch((5, *SIZE)), Form(nn.Identity()).missing_batch((5, *SIZE))) == (5, None)


def test_code_depends_on_dtype_size_1_and_kind_of_batch(small_up_to_1000: None) -> None:
    def pattern(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
        return compiling._pattern(dtype, CPU, shape)

    assert pattern(2, 10, 10) == pattern(3, 20, 10)
    assert pattern(10, 10, 10) != pattern(11, 10, 10)
    assert pattern(2, 10, 10) != pattern(1, 10, 10)
    assert pattern(2, 10, 1) != pattern(2, 10, 2)
    assert pattern(2, 10, dtype=torch.float16) != pattern(2, 10)


def test_image_sizes_are_remembered_up_to_a_limit() -> None:
    """The first ones are forgotten first; empty batches leave no trace."""
    calls: list[int] = []
    regions = Regions(nn.Identity())
    regions._model.register_forward_hook(lambda *_: calls.append(1))
    for width in range(1, MAX_KNOWN_SIZES + 2):
        assert regions(torch.zeros(1, 1, 1, width)).shape == (1, 1, 1, width)
    assert list(regions._visits) == [(1, 1, width) for width in range(2, MAX_KNOWN_SIZES + 2)]
    regions(torch.zeros(0, 1, 1, 500))
    assert (1, 1, 500) not in regions._visits
    assert len(calls) == MAX_KNOWN_SIZES + 2
    assert compiling._VISITS.current is None


def test_a_whole_model_keeps_the_code_of_the_sizes_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str | None] = []

    def compile(function: Any, mode: str | None) -> Any:
        compiled.append(mode)
        return function

    monkeypatch.setattr(torch, "compile", compile)
    whole = WholeModel(nn.Flatten(), "max-autotune-no-cudagraphs")

    def run(width: int) -> Tensor:
        return whole(torch.ones(2, 1, 1, width, requires_grad=True))

    for width in range(1, MAX_SIZES + 1):
        out = run(width)
        assert (out.shape, out.requires_grad) == ((2, width), False)
    assert compiled == ["max-autotune-no-cudagraphs"] * MAX_SIZES
    run(1)
    run(MAX_SIZES + 1)
    assert [size[-1] for size in whole._by_size] == [*range(3, MAX_SIZES + 1), 1, MAX_SIZES + 1]
    assert len(compiled) == MAX_SIZES + 1
    whole(torch.ones(0, 1, 1, 77))
    assert len(compiled) == MAX_SIZES + 1


def test_modes_of_the_compiler_are_known() -> None:
    assert [compiler_mode(mode) for mode in (True, False, "default", "reduce-overhead")] == [None] * 4
    assert compiler_mode("max-autotune") == "max-autotune-no-cudagraphs"
    with pytest.raises(ConfigError, match=r"compile='fast'; give True, False or a mode"):
        compiler_mode("fast")
    assert type(form_of(nn.Identity(), False, True)) is Form
    assert type(form_of(nn.Identity(), None, True)) is WholeModel
    assert type(form_of(nn.Identity(), None, False)) is Regions
