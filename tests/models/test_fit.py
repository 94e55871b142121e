"""Weights fitted to a model: what is adapted, what is read off the tensors, and the words for what does not fit."""

import logging
from fractions import Fraction
from typing import Any

import pytest
import timm
import torch
from torch import nn

from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.models import create_model, fit, restriding
from sequencer2d.models.checkpoints import _unwrap
from sequencer2d.models.description import LARGEST_IMAGE, is_integer, is_number, is_text
from sequencer2d.models.features import Sequencer2DFeatures
from sequencer2d.models.fit import HEAD, POSITIONS, STEM, adapt_channels, check_shapes, fit_state, identify
from sequencer2d.models.locate import _looks_like_hub_id
from sequencer2d.models.peers import fit_peer
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.models.variants import VARIANTS, model_config
from tests.models.small import small_model


def test_a_kernel_for_rgb_gives_the_same_for_gray_in_any_number_of_channels() -> None:
    weight = torch.arange(1.0, 7.0).reshape(2, 3, 1, 1)
    assert adapt_channels(weight, 1).flatten().tolist() == [6, 15]
    assert adapt_channels(weight, 4).flatten().tolist() == [0.75, 1.5, 2.25, 0.75, 3, 3.75, 4.5, 3]
    assert adapt_channels(weight, 2)[0].flatten().tolist() == [1.5, 3]


@pytest.mark.parametrize(("given", "wanted"), [(3, 1), (3, 4), (3, 3), (1, 3)])
def test_a_stem_for_rgb_alone_is_adapted_and_that_is_said(
    given: int, wanted: int, caplog: pytest.LogCaptureFixture
) -> None:
    state, model = small_model(in_chans=given).state_dict(), small_model(in_chans=wanted)
    with caplog.at_level(logging.WARNING):
        if given == 1:
            with pytest.raises(CheckpointError, match=r"the\.file does not fit .*of another shape: stem\.proj\.weight"):
                fit_state(state, model, "the.file")
            return
        fitted = fit_state(state, model, "the.file")
    assert torch.equal(fitted[STEM], state[STEM] if wanted == 3 else adapt_channels(state[STEM], wanted))
    assert ("stem for 3 image channels adapted to" in caplog.text) == (wanted != 3)


def test_a_classifier_for_other_classes_gives_way_to_the_models(caplog: pytest.LogCaptureFixture) -> None:
    state, model = small_model(num_classes=7).state_dict(), small_model(num_classes=5)
    fitted = fit_state(state, model, "the.file")
    assert "the.file: classifier for 7 classes left out, the model has 5" in caplog.text
    for name in HEAD:
        assert torch.equal(fitted[name], model.state_dict()[name])
    without = fit_state(state, small_model(num_classes=0), "the.file")
    assert not set(HEAD) & set(without)
    caplog.clear()
    same = fit_state(state, small_model(num_classes=7), "the.file")
    assert torch.equal(same[HEAD[0]], state[HEAD[0]])
    assert caplog.text == ""


def test_what_does_not_fit_is_counted_and_named() -> None:
    model = small_model()
    state = {name: value for name, value in model.state_dict().items() if "norm1" not in name}
    state["more"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"missing: .*, … \(10 in all\); unexpected: more$"):
        fit_state(state, model, "the.file")
    assert fit._some(list("abcd")) == "a, b, c, d"
    assert fit._some(list("abcde")) == "a, b, c, d, … (5 in all)"
    assert fit._shortened((1, 2, 3, 4, 5, 10**9)) == "(1, 2, 3, 4, 5, 10⁹ or more)"
    assert fit._shortened((1, 2, 3, 4, 5, 6, 7)) == "(1, 2, 3, 4, 5, 6, …)"
    assert fit._shortened((10**9 - 1,)) == "(999999999)"


def state_of(name: str, **options: Any) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return Sequencer2D(model_config(name, **options), name).state_dict()


@pytest.mark.parametrize("name", ["sequencer2d_s", "sequencer2d_m", "vsequencer_pe_s"])
def test_a_variant_is_known_by_its_tensors_whatever_its_classes_and_channels(name: str) -> None:
    assert name in VARIANTS
    assert identify(state_of(name, num_classes=3, in_chans=1), Sequencer2D) == name
    assert identify(state_of("sequencer2d_s", depths=(4, 3, 8, 2)), Sequencer2D) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depths": (4, 3, 8, 2)}, r"depths asks for \(4, 3, 8, 2\), its tensors have \(4, 3, 8, 3\)"),
        ({"dims": (192, 384, 384, 192)}, r"dims asks for \(192, 384, 384, 192\)"),
        ({"hidden_dims": (48, 96, 96, 48)}, "hidden_dims asks for"),
        ({"patch_sizes": (8, 2, 1, 1)}, r"patch_sizes asks for \(8, 2, 1, 1\), its tensors have \(7, 2, 1, 1\)"),
        ({"mlp_ratio": 2.0}, r"mlp_ratio asks for \(384\), its tensors have \(576\)"),
        ({}, ""),
    ],
)
def test_sizes_are_read_off_the_tensors_before_anything_is_built(options: dict[str, Any], says: str) -> None:
    state, config = state_of("sequencer2d_s"), model_config("sequencer2d_s", **options)
    if says:
        with pytest.raises(CheckpointError, match=says):
            check_shapes(state, config, "sequencer2d_s", "the.file", Sequencer2D)
    else:
        check_shapes(state, config, "sequencer2d_s", "the.file", Sequencer2D)


def test_a_grid_of_positions_is_compared_unless_the_user_changes_it() -> None:
    state = state_of("vsequencer_pe_s")
    assert tuple(state[POSITIONS].shape[1:3]) == (16, 16)
    larger = model_config("vsequencer_pe_s", img_size=256)
    with pytest.raises(CheckpointError, match=r"img_size asks for .*, its tensors have \(16, 16\)"):
        check_shapes(state, larger, "vsequencer_pe_s", "the.file", Sequencer2D)
    for field in ("img_size", "patch_sizes", "pad"):
        check_shapes(state, larger, "vsequencer_pe_s", "the.file", Sequencer2D, free=(field,))


@pytest.mark.parametrize("classes", [10, 4, 0])
def test_a_model_of_others_keeps_its_own_classifier_where_the_files_is_for_other_classes(classes: int) -> None:
    source = timm.create_model("test_resnet", num_classes=10)
    model = timm.create_model("test_resnet", num_classes=classes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit_peer(model, source.state_dict(), "the.file")
    after, given = model.state_dict(), source.state_dict()
    for name in ("fc.weight", "fc.bias") if classes else ():
        assert torch.equal(after[name], (given if classes == 10 else before)[name])
    assert all(torch.equal(after[name], given[name]) for name in after if not name.startswith("fc."))


@pytest.mark.parametrize(
    ("content", "use_ema", "value"),
    [
        ({"model": 1, "model_ema": 2}, True, 2),
        ({"model": 1, "model_ema": 2}, False, 1),
        ({"state_dict": 1, "state_dict_ema": 2}, True, 2),
        ({"state_dict": 1}, True, 1),
        ({"model": 1, "state_dict": 3}, True, 1),
    ],
)
def test_averaged_weights_come_first_unless_they_are_not_wanted(content: Any, use_ema: bool, value: int) -> None:
    wrapped = {name: {"w": torch.tensor(number)} for name, number in content.items()}
    state, meta = _unwrap({**wrapped, "arch": "sequencer2d_s"}, "file", use_ema)  # type: ignore[arg-type]
    assert state["w"] == value
    assert meta == {"model": "sequencer2d_s"}
    assert _unwrap({**wrapped, "arch": "other"}, "file", use_ema)[1] == {}  # type: ignore[arg-type]
    assert _unwrap({**wrapped, "arch": "sequencer2d_s", "meta": {"a": 1}}, "file", use_ema)[1] == {"a": 1}  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [{}, {"model": {}}, {"w": 3}, {"w": torch.zeros(1), "epoch": 3}, [1]])
def test_what_holds_no_weights_is_refused(content: Any) -> None:
    with pytest.raises(CheckpointError, match="holds"):
        _unwrap(content, "file", True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "looks"),
    [("owner/name", True), ("name", False), ("a/b/c", False), ("./name", False), ("/name", False), ("~/name", False),
     ("a/b.pt", False), ("a/b.pth", False), ("a/b.x", True)],
)  # fmt: skip
def test_an_owner_and_a_name_look_like_a_repository(text: str, looks: bool) -> None:
    assert _looks_like_hub_id(text) == looks


def test_bounds_of_a_description_are_included_and_a_bool_is_no_number() -> None:
    assert [is_integer(value, 1, 3) for value in (0, 1, 3, 4, True, 2.0)] == [False, True, True, False, False, False]
    numbers = (0.5, 1, 3.0, 3.5, True, float("nan"), float("inf"), "2")
    assert [is_number(value, 1, 3) for value in numbers] == [False, True, True, *[False] * 5]
    assert [is_text(value, 2) for value in ("ab", "abc", 3, "\ud800", "\udc80")] == [True, False, False, False, True]
    assert is_text("a" * 1000)
    assert not is_text("a" * 1001)
    assert LARGEST_IMAGE == 4096


@pytest.mark.parametrize(
    ("strides", "stem"), [((4, 8, 16, 32), 8), ((7, 14, 28, 56), 7), ((8, 16), 8), ((16,), 8), ((14,), 7)]
)
def test_the_stride_of_a_stem_is_the_nearest_from_which_doubling_leads_to_a_pyramid(
    strides: tuple[int, ...], stem: int
) -> None:
    config = model_config("sequencer2d_s")  # strides 7, 14, 14, 14
    assert restriding.stem_for(config, [Fraction(stride) for stride in strides]) == stem
    with pytest.raises(ConfigError, match="no stride of the stem leads there"):
        restriding.stem_for(config, [Fraction(8), Fraction(12)])


@pytest.mark.parametrize(("indices", "stages"), [(None, 4), ((0, 2), 3), ((2, 0), 3), (1, 4), ((3,), 4)])
def test_stages_after_the_last_map_are_left_out(indices: Any, stages: int) -> None:
    model = create_model("sequencer2d_n", depths=(1, 1, 1, 1), dims=(8,) * 4, hidden_dims=(2,) * 4)
    found = Sequencer2DFeatures(model, indices, norm=True)
    assert len(found.stages) == stages
    assert found.out_indices == {None: (0, 1, 2, 3), (0, 2): (0, 2), (2, 0): (0, 2), 1: (3,), (3,): (3,)}[indices]
    assert (found.norm is model.norm) == (stages == 4)
    assert type(Sequencer2DFeatures(model, indices).norm) is nn.Identity
    assert "num_classes" not in found.pretrained_cfg
    assert found.pretrained_cfg["mean"] == model.pretrained_cfg["mean"]
