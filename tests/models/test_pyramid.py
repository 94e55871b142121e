"""Feature maps for any decoder, at the strides that it asks for."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from sequencer2d import create_model, fuse, optimize
from sequencer2d.dense import Segmenter
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models import FeaturePyramid, feature_pyramid, register_timm, restride, save_weights
from tests.models.small import SIZES, randomize, small_model

STRIDES = (4, 8, 16, 32)
NATIVE = (3.5, 7, 14, 28)
of_timm_with_maps = pytest.mark.skipif(
    not hasattr(timm.models.sequencer.Sequencer2d, "forward_intermediates"),
    reason="this version of timm has no feature maps of its Sequencer",
)


ONE_SCAN: dict[str, Any] = {"depths": (1, 1, 1, 1), "axes": "vertical", "bidirectional": False}
"""For compilers, which take as long for each scan."""


def pyramid(strides: Any = STRIDES, dim: int | None = None, **options: Any) -> FeaturePyramid:
    torch.manual_seed(0)
    made = create_model("sequencer2d_n", features_only=True, pyramid=strides, pyramid_dim=dim, **(SIZES | options))
    assert isinstance(made, FeaturePyramid)
    return made


def sources(made: FeaturePyramid) -> list[tuple[int, int]]:
    """The stage of each level, and how often its resolution is doubled."""
    return [(source.stage, source.steps) for source in made.sources]


@pytest.mark.parametrize("size", [(64, 96), (37, 50), (33, 127), (1, 3)])
@pytest.mark.parametrize(
    "strides, channels",
    [
        (STRIDES, [16, 16, 32, 32]),
        (NATIVE, [16, 16, 32, 32]),
        ((8, 16, 32), [16, 32, 32]),
        ((2, 4, 8, 16, 32), [16, 16, 16, 32, 32]),
        ((14,), [32]),
    ],
)
@pytest.mark.parametrize("dim", [None, 24])
def test_maps_have_exactly_the_promised_sizes(strides: Any, channels: list[int], size: Any, dim: int | None) -> None:
    made = pyramid(strides, dim).eval()
    maps = made(torch.randn(2, 3, *size))
    assert made.feature_info.reduction() == list(strides)
    assert made.feature_info.channels() == ([dim] * len(strides) if dim else channels)
    expected = [
        (2, width, *(math.ceil(pixels / stride) for pixels in size))
        for width, stride in zip(made.feature_info.channels(), strides, strict=True)
    ]
    assert [tuple(taken.shape) for taken in maps] == expected
    assert all(taken.is_contiguous() for taken in maps)


def test_levels_come_from_the_stages_of_their_strides_and_the_last_from_the_last() -> None:
    assert sources(pyramid()) == [(0, 1), (0, 0), (2, 0), (3, -1)]
    assert sources(pyramid(NATIVE)) == [(0, 1), (0, 0), (2, 0), (3, -1)]
    assert sources(pyramid((8, 16))) == [(0, 0), (3, 0)]
    assert sources(pyramid((8,))) == [(3, 1)]
    resnet = feature_pyramid(timm.create_model("test_resnet"), (4, 8, 16, 32))
    assert [source.reduction for source in resnet.sources] == [4, 8, 16, 32]
    # A plain backbone is taken at equal distances, as XCiT and BEiT do it (3, 6, 9 and 12 of 12 blocks).
    plain = feature_pyramid(create_model("sequencer2d_n", **SIZES | {"patch_sizes": (16, 1, 1, 1)}), (8, 16))
    assert sources(plain) == [(1, 1), (3, 0)]
    vanilla = create_model("vsequencer_pe_s", dims=(16,) * 4, hidden_dims=(8,) * 4, depths=(1,) * 4)
    assert sources(feature_pyramid(vanilla)) == [(0, 2), (1, 1), (2, 0), (3, -1)]
    assert vanilla.config.patch_sizes == (16, 1, 1, 1)


def test_a_native_pyramid_holds_the_stages_maps_normalized() -> None:
    model, x = small_model(), torch.randn(1, 3, 56, 70)
    stages = model.forward_intermediates(x, intermediates_only=True)
    final = model.forward_features(x).permute(0, 3, 1, 2)
    finest, fine, middle, last = feature_pyramid(model, NATIVE).eval()(x)

    def normed(x_BCHW: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x_BCHW.permute(0, 2, 3, 1), x_BCHW.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)

    torch.testing.assert_close(fine, normed(stages[0]))
    torch.testing.assert_close(middle, normed(stages[2]))
    torch.testing.assert_close(last, F.max_pool2d(final, 2, ceil_mode=True))
    assert finest.shape[2:] == (16, 20)


def test_what_lies_beyond_the_image_is_the_mean_color() -> None:
    made, x = pyramid().eval(), torch.randn(1, 3, 30, 41)
    whole = F.pad(x, (0, 7, 0, 2))
    for cut, padded in zip(made(x), made(whole), strict=True):
        assert torch.equal(cut, padded[:, :, : cut.shape[2], : cut.shape[3]])


def test_weights_of_a_file_fill_the_backbone_and_the_native_stem_is_untouched(tmp_path: Path) -> None:
    model = small_model()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_weights(model, tmp_path / "weights.safetensors")
    for strides, same in ((NATIVE, True), (STRIDES, False)):
        backbone = pyramid(strides, checkpoint=str(tmp_path / "weights.safetensors")).backbone.state_dict()
        assert set(backbone) == {name for name in state if not name.startswith("head.")}
        changed = [name for name, tensor in backbone.items() if not torch.equal(tensor, state[name])]
        assert changed == ([] if same else ["stem.proj.weight"])
    restride(model, 8)
    assert torch.equal(backbone["stem.proj.weight"], model.stem.proj.weight)


@pytest.mark.parametrize("name, millions", [("sequencer2d_s", 32), ("sequencer2d_m", 42), ("sequencer2d_l", 58)])
def test_with_semantic_fpn_it_has_as_many_parameters_as_the_paper_says(name: str, millions: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=0)
        made = feature_pyramid(create_model(name), STRIDES)
    restride(model, 8)
    own = sum(parameter.numel() for parameter in made.parameters())
    transposed, norms = 192 * 192 * 4 + 192, 2 * (192 + 192 + 384)
    assert own - sum(parameter.numel() for parameter in model.parameters()) == transposed + norms
    with torch.device("meta"):
        segmenter = Segmenter(made, num_classes=150)
    assert round(sum(parameter.numel() for parameter in segmenter.parameters()) / 1e6) == millions


def test_chosen_levels_are_those_of_the_whole_pyramid() -> None:
    whole, x = pyramid(dim=8).eval(), torch.randn(1, 3, 40, 56)
    for indices, levels in (((0, 1), [0, 1]), ([-1], [3]), (2, [2, 3])):
        part = pyramid(dim=8, out_indices=indices).eval()
        loaded = part.load_state_dict(whole.state_dict(), strict=False)
        assert not loaded.missing_keys
        assert part.feature_info.reduction() == [STRIDES[level] for level in levels]
        assert part.feature_info.module_name() == [f"levels.{level}" for level in levels]
        assert all(isinstance(part.get_submodule(name), nn.Module) for name in part.feature_info.module_name())
        maps = whole(x)
        assert all(torch.equal(a, maps[level]) for a, level in zip(part(x), levels, strict=True))
    assert not [name for name in pyramid(out_indices=(0, 1)).state_dict() if name.startswith("backbone.stages.1")]


@pytest.mark.parametrize("strides", [STRIDES, NATIVE])
def test_an_exported_program_takes_any_size(strides: Any) -> None:
    made = pyramid(strides, 8, **ONE_SCAN).eval()
    sizes = {0: Dim("batch"), 2: Dim("height", min=33, max=4000), 3: Dim("width", min=33, max=4000)}
    program = torch.export.export(made, (torch.randn(2, 3, 64, 80),), dynamic_shapes={"x_BCHW": sizes}).module()
    for shape in ((1, 3, 64, 96), (3, 3, 37, 50), (1, 3, 33, 35)):
        x = torch.randn(shape)
        for found, expected in zip(program(x), made(x), strict=True):
            torch.testing.assert_close(found, expected)


@of_timm_with_maps
def test_fused_mixers_of_timm_give_the_same_maps() -> None:
    sizes = {"layers": (1, 2, 1, 1), "embed_dims": (16, 32, 32, 32), "hidden_sizes": (4, 8, 8, 8)}
    made = create_model("timm:sequencer2d_s", features_only=True, pyramid=NATIVE, **sizes).eval()
    x = torch.randn(1, 3, 42, 57)
    expected = made(x)
    assert len(fuse(made)) == 5
    assert [tuple(taken.shape) for taken in made(x)] == [
        (1, 16, 12, 17), (1, 16, 6, 9), (1, 32, 3, 5), (1, 32, 2, 3),
    ]  # fmt: skip
    for found, taken in zip(made(x), expected, strict=True):
        torch.testing.assert_close(found, taken)
    assert fuse(pyramid()) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace", "ignore::torch.jit.TracerWarning")
def test_it_is_compiled_without_a_graph_break_optimized_and_traced() -> None:
    made, x, other = pyramid(dim=8, **ONE_SCAN).eval(), torch.randn(1, 3, 37, 50), torch.randn(2, 3, 48, 65)
    with torch.no_grad():
        traced = torch.jit.trace(made, x, check_trace=False)
        forms = (torch.compile(made, fullgraph=True, backend="eager"), optimize(made, compile=False), traced)
        for form in forms:
            for images in (x, other):
                for found, expected in zip(form(images), made(images), strict=True):
                    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter_and_checkpointing_keeps_them() -> None:
    x, gradients = torch.randn(1, 3, 40, 50), []
    for checkpointing in (False, True):
        made = randomize(pyramid((2, 4, 8, 16, 32), 8)).train()
        made.set_grad_checkpointing(checkpointing)
        sum(taken.square().mean() for taken in made(x)).backward()
        assert all(parameter.grad is not None for parameter in made.parameters())
        gradients.append([parameter.grad for parameter in made.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)
    assert made.backbone.stages[0].grad_checkpointing


def test_the_recurrence_is_chosen_as_in_the_model() -> None:
    made, x = pyramid().eval(), torch.randn(1, 3, 32, 48)
    expected = made(x)
    made.set_implementation("reference")
    assert made.backbone.config.implementation == "reference"
    for found, taken in zip(made(x), expected, strict=True):
        torch.testing.assert_close(found, taken)
    with pytest.raises(ConfigError, match="ResNet has no recurrence"):
        feature_pyramid(timm.create_model("test_resnet")).set_implementation("reference")


def test_it_takes_the_models_device_and_dtype_and_says_how_images_are_prepared() -> None:
    made = feature_pyramid(small_model().bfloat16())
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
    assert {taken.dtype for taken in made(torch.randn(1, 3, 32, 32).bfloat16())} == {torch.bfloat16}
    assert made.default_cfg is made.pretrained_cfg
    assert (made.pretrained_cfg["pool_size"], made.in_chans) == ((14, 14), 3)
    assert "classifier" not in made.pretrained_cfg
    assert made.no_weight_decay() == set()


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"pyramid": (8, 4)}, "ascending order"),
        ({"pyramid": ()}, "ascending order"),
        ({"pyramid": (0, 4)}, "ascending order"),
        ({"pyramid": "4"}, "ascending order"),
        ({"pyramid": (4, 6)}, "powers of two"),
        ({"pyramid": STRIDES, "pyramid_dim": 0}, "positive number of channels"),
        ({"pyramid": STRIDES, "out_indices": (4,)}, "0 to 3"),
        ({"pyramid": STRIDES, "output_fmt": "NHWC"}, "NCHW"),
        ({"pyramid": STRIDES, "features_only": False}, "features_only=True"),
        ({"pyramid_dim": 8}, "needs pyramid="),
    ],
)
def test_choices_that_do_not_exist(options: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        create_model("sequencer2d_n", **({"features_only": True} | SIZES | options))


@of_timm_with_maps
def test_timms_sequencer_needs_strides_that_fit() -> None:
    with pytest.raises(ConfigError, match="stride 7 of stage 0 are no power of two apart"):
        create_model("timm:sequencer2d_s", features_only=True, pyramid=STRIDES)


def test_what_cannot_become_a_pyramid_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not describe"):
        feature_pyramid(nn.Linear(2, 2))
    with pytest.raises(InputError, match="4 channels"):
        pyramid()(torch.randn(1, 4, 32, 32))


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_convnext", "pvt_tiny"])
def test_any_model_with_feature_maps_becomes_a_pyramid(name: str) -> None:
    made = create_model(name, features_only=True, pyramid=STRIDES, pyramid_dim=8).eval()
    size = made.pretrained_cfg["input_size"][-1]
    maps = made(torch.randn(1, 3, size, size))
    assert [tuple(taken.shape) for taken in maps] == [(1, 8, size // stride, size // stride) for stride in STRIDES]


def test_timm_makes_it_by_its_options_and_by_a_name() -> None:
    register_timm()
    x = torch.randn(1, 3, 40, 56)
    torch.manual_seed(0)
    named = timm.create_model("s2d_sequencer2d_n_pyramid", features_only=True, **SIZES).eval()
    torch.manual_seed(0)
    asked = timm.create_model("s2d_sequencer2d_n", features_only=True, pyramid=STRIDES, **SIZES).eval()
    assert all(torch.equal(a, b) for a, b in zip(named(x), asked(x), strict=True))
    assert named.feature_info.reduction() == [4, 8, 16, 32]
    dilated = timm.create_model(
        "s2d_sequencer2d_n_pyramid", features_only=True, output_stride=16, out_indices=(2, 3), **SIZES
    )
    assert dilated.feature_info.reduction() == [16, 16]
    assert [tuple(taken.shape[2:]) for taken in dilated(x)] == [(3, 4), (3, 4)]
    with torch.device("meta"):
        assert timm.create_model("s2d_sequencer2d_s_pyramid", features_only=True).feature_info.channels() == [
            192, 192, 384, 384,
        ]  # fmt: skip
    with pytest.raises(ConfigError, match="output_stride limits a pyramid"):
        timm.create_model("s2d_sequencer2d_n", features_only=True, output_stride=16)
    with pytest.raises(ConfigError, match="at least the finest stride 4"):
        timm.create_model("s2d_sequencer2d_n_pyramid", features_only=True, output_stride=2)


def test_the_name_alone_is_the_classifier_of_that_stride(tmp_path: Path) -> None:
    register_timm()
    trained, x = small_model(), torch.randn(1, 3, 48, 64)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "num_classes": 5}
    options: Any = {"pretrained": True, "pretrained_cfg_overlay": overlay} | SIZES
    model = timm.create_model("s2d_sequencer2d_n_pyramid", num_classes=5, **options).eval()
    backbone = timm.create_model("s2d_sequencer2d_n_pyramid", features_only=True, **options).eval()
    restride(trained, 8)
    assert torch.equal(model(x), trained(x))
    torch.testing.assert_close(
        backbone(x)[-1], F.max_pool2d(trained.forward_features(x).permute(0, 3, 1, 2), 2, ceil_mode=True)
    )
