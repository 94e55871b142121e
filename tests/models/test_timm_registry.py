"""timm's factory and our models: the whole of what timm's users do with a registered model."""

import copy
import itertools
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.fx
from timm.data import resolve_model_data_config
from timm.models._helpers import load_checkpoint
from timm.models._manipulate import group_parameters
from torchvision.models.feature_extraction import create_feature_extractor

from sequencer2d import list_models
from sequencer2d.errors import CheckpointError, ConfigError
from sequencer2d.models import load_model, save_weights, to_authors
from sequencer2d.models.sequencer2d import Sequencer2D
from sequencer2d.models.timm_registry import register_timm
from sequencer2d.peers import list_peers
from tests.models.small import SIZES, randomize, small_model

NAME = "s2d_sequencer2d_n"
INPUT = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.95, "interpolation": "bilinear"}


@pytest.fixture(autouse=True)
def registered() -> None:
    register_timm()


def create(**options: Any) -> Any:
    return timm.create_model(NAME, **(SIZES | options))


def test_timm_creates_ours_by_prefixed_names_and_keeps_its_own():
    own = timm.models.model_entrypoint("sequencer2d_s")
    names = register_timm()
    pyramids = [f"{name}_pyramid" for name in list_models()]
    assert names == [f"s2d_{name}" for name in (*list_models(), *list_peers(), *pyramids)]
    assert set(timm.list_models("s2d_*")) == set(names)
    model = timm.create_model(NAME, num_classes=3, drop_path_rate=0.1)
    assert isinstance(model, Sequencer2D)
    assert model.variant == "sequencer2d_n"
    assert (model.num_classes, model.config.drop_path_rate) == (3, 0.1)
    assert timm.models.model_entrypoint("sequencer2d_s") is own


def test_registering_twice_changes_nothing():
    first = timm.models.model_entrypoint(NAME)
    register_timm()
    assert timm.models.model_entrypoint(NAME) is first


@pytest.mark.parametrize("prefix, complaint", [("", "timm has a model 'sequencer2d_s'"), ("mine.", "dot")])
def test_a_prefix_that_cannot_be(prefix, complaint):
    with pytest.raises(ConfigError, match=complaint):
        register_timm(prefix)


def test_published_weights_go_by_timms_tags():
    tagged = [f"sequencer2d_{size}{form}.in1k" for size in "sml" for form in ("", "_pyramid")]
    shipped = [f"sequencer2d_n_p4{form}.tiny_imagenet" for form in ("", "_pyramid")]
    assert set(timm.list_pretrained("s2d_*")) == {f"s2d_{name}" for name in (*tagged, *shipped)}
    for size, form in itertools.product("sml", ("", "_pyramid")):
        ours = timm.get_pretrained_cfg(f"s2d_sequencer2d_{size}{form}.in1k")
        theirs = timm.get_pretrained_cfg(f"sequencer2d_{size}.in1k")
        for field in (
            "hf_hub_id",
            "mean",
            "std",
            "crop_pct",
            "interpolation",
            "input_size",
            "first_conv",
            "classifier",
        ):
            assert getattr(ours, field) == getattr(theirs, field)
    assert timm.models.is_model_pretrained("s2d_sequencer2d_s")
    assert not timm.models.is_model_pretrained(NAME)
    model = timm.create_model("s2d_sequencer2d_s.in1k", depths=(1, 1, 1, 1))
    assert (model.pretrained_cfg["tag"], model.pretrained_cfg["architecture"]) == ("in1k", "s2d_sequencer2d_s")
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        timm.create_model("s2d_sequencer2d_s.in22k")
    with pytest.raises(RuntimeError, match="No pretrained weights exist"):
        create(pretrained=True)


@pytest.mark.parametrize("how", ["pretrained_cfg", "pretrained_cfg_overlay"])
@pytest.mark.parametrize("names", ["ours", "authors"])
def test_descriptions_of_weights_are_taken(tmp_path: Path, how: str, names: str) -> None:
    trained = small_model()
    state = trained.state_dict() if names == "ours" else to_authors(trained.state_dict())
    torch.save(state, tmp_path / "w.pth")
    cfg = INPUT | {"file": str(tmp_path / "w.pth"), "num_classes": 5, "label_names": tuple("abcde")}
    cfg |= {"first_conv": "stem.proj", "classifier": "head.fc"}
    model = create(pretrained=True, **{how: cfg}).eval()
    x = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(model(x), trained(x))
    assert {key: model.pretrained_cfg[key] for key in INPUT} == INPUT
    assert {key: resolve_model_data_config(model)[key] for key in INPUT} == INPUT
    save_weights(model, tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    assert {key: again.pretrained_cfg[key] for key in INPUT} == INPUT
    assert again.pretrained_cfg["label_names"] == list("abcde")

    other = create(pretrained=True, num_classes=2, in_chans=1, **{how: cfg}).eval()
    torch.testing.assert_close(other.stem.proj.weight, trained.stem.proj.weight.sum(1, keepdim=True))
    torch.testing.assert_close(other.norm.weight, trained.norm.weight)
    assert (other.num_classes, other.pretrained_cfg["label_names"]) == (2, None)
    assert other.pretrained_cfg["input_size"] == (1, 224, 224)


def test_a_description_decides_the_size_and_positions_follow(tmp_path: Path) -> None:
    trained = small_model(position_embedding=True, img_size=28)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    overlay = {"file": str(tmp_path / "w.pth"), "num_classes": 5, "input_size": (3, 56, 56)}
    model = create(pretrained=True, position_embedding=True, pretrained_cfg_overlay=overlay).eval()
    assert model.config.img_size == (56, 56)
    x = torch.randn(1, 3, 56, 56)
    torch.testing.assert_close(model(x), trained(x))


class Attack:
    def __reduce__(self) -> Any:
        return print, ("code ran",)


def test_weights_with_objects_are_refused_in_words_of_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": small_model().state_dict(), "extra": Attack()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"s2d_sequencer2d_n are not read: .* as a \.safetensors file") as caught:
        create(pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "w.pth"), "num_classes": 5})
    assert "retry with weights_only" not in "".join(traceback.format_exception(caught.value))
    assert "code ran" not in capfd.readouterr().out


def test_options_that_do_not_exist_are_type_errors():
    with pytest.raises(TypeError, match="no option 'dephts'; did you mean depths"):
        create(dephts=(1, 1, 1, 1))


def test_device_and_dtype_are_those_asked_for():
    model = create(device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("feature_cls", [None, "getter", "list", "dict", "hook", "fx"])
def test_features_come_from_every_extractor_of_timm(feature_cls: str | None) -> None:
    chosen = {"feature_cls": feature_cls} if feature_cls else {}
    torch.manual_seed(0)
    backbone = create(features_only=True, out_indices=(2, 0), **chosen).eval()  # its order does not matter
    torch.manual_seed(0)
    model, x = create().eval(), torch.randn(1, 3, 28, 42)
    expected = model.forward_intermediates(x, indices=(0, 2), intermediates_only=True)
    maps = backbone(x)
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    for found, map_ in zip(maps, expected, strict=True):
        nchw = found if found.shape == map_.shape else found.permute(0, 3, 1, 2)
        torch.testing.assert_close(nchw, map_)
    info = backbone.feature_info
    assert (info.channels(), info.reduction(), info.module_name()) == ([16, 32], [7, 14], ["stages.0", "stages.2"])
    assert info.get_dicts(keys=["num_chs", "reduction"]) == [
        {"num_chs": 16, "reduction": 7}, {"num_chs": 32, "reduction": 14},
    ]  # fmt: skip
    assert backbone.default_cfg["input_size"] == (3, 224, 224)
    assert backbone.default_cfg["pool_size"] == (16, 16)
    assert "classifier" not in backbone.default_cfg


def test_features_in_other_layouts_and_of_all_stages():
    backbone = create(features_only=True, output_fmt="NHWC")
    assert [tuple(taken.shape[1:]) for taken in backbone(torch.randn(1, 3, 28, 28))] == [
        (4, 4, 16), (2, 2, 32), (2, 2, 32), (2, 2, 32),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="features_only=True"):
        create(out_indices=(0,))


@pytest.mark.parametrize("options", [{}, {"position_embedding": True}, {"axes": "flatten", "fusion": "concat"}])
@pytest.mark.parametrize("train", [False, True])
def test_a_model_traced_by_symbols_computes_the_same_at_every_size(options: Any, train: bool) -> None:
    model = create(drop_path_rate=0.5, num_classes=5, **options)
    randomize(model).train(train)
    traced = torch.fx.symbolic_trace(model)
    for size in ((28, 28), (30, 41)):
        x = torch.randn(2, 3, *size)
        with torch.random.fork_rng():
            expected = model(x)
        torch.testing.assert_close(traced(x), expected)
    extract = create_feature_extractor(model.eval(), {"stages.0": "low", "head": "logits"}, suppress_diff_warning=True)
    taken = extract(torch.randn(1, 3, 28, 28))
    assert (taken["low"].shape, taken["logits"].shape) == ((1, 4, 4, 16), (1, 5))


@pytest.mark.parametrize("last", range(4))
def test_pruning_keeps_the_maps_and_ends_the_features_there(last: int) -> None:
    model, x = small_model(), torch.randn(2, 3, 30, 28)
    expected = model.forward_intermediates(x, intermediates_only=True)
    logits = model(x)
    pruned = copy.deepcopy(model)
    assert pruned.prune_intermediate_layers([last]) == [last]
    (map_,) = pruned.forward_intermediates(x, indices=[last], intermediates_only=True)
    torch.testing.assert_close(map_, expected[last])
    assert pruned(x).shape[-1] == pruned.num_features == pruned.head_hidden_size == map_.shape[1]
    if last < 3:
        torch.testing.assert_close(pruned.forward_features(x).permute(0, 3, 1, 2), expected[last])
    (map_.sum() + pruned.forward_features(x).sum()).backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())

    whole = copy.deepcopy(model)
    whole.prune_intermediate_layers([3], prune_head=False)
    torch.testing.assert_close(whole(x), logits)
    if last < 3:
        with pytest.raises(ConfigError, match="pruned"):
            save_weights(pruned, "never.safetensors")
    normless = copy.deepcopy(model)
    normless.prune_intermediate_layers([3], prune_norm=True, prune_head=False)
    with pytest.raises(ConfigError, match="pruned"):
        save_weights(normless, "never.safetensors")


@pytest.mark.parametrize("name", list_models())
def test_every_variant_keeps_timms_contract(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"s2d_{name}", num_classes=7, depths=(1, 1, 1, 1)).eval()
    cfg = model.default_cfg
    assert cfg is model.pretrained_cfg
    stride = 8 if name.endswith("_p4") else 14
    side = 112 if name == "sequencer2d_n_p4" else 224  # that of the weights, if there are any
    assert (cfg["input_size"], cfg["pool_size"]) == ((3, side, side), (side // stride, side // stride))
    x = torch.empty(1, 3, 2 * stride, 2 * stride, device="meta")
    features = model.forward_features(x)
    assert features.shape[1:3] == (2, 2)
    assert features.shape[model.feature_dim] == model.num_features
    assert model.output_fmt == "NHWC"
    assert model.forward_head(features, pre_logits=True).shape == (1, model.head_hidden_size)
    assert model(x).shape == (1, 7)
    parameters = dict(model.named_parameters())
    assert {f"{cfg['first_conv']}.weight", f"{cfg['classifier']}.weight"} <= set(parameters)
    assert model.no_weight_decay() <= set(parameters)
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert set(groups) == set(parameters)
        assert len(set(groups.values())) > 3
    model.requires_grad_(False).to(torch.float64)
    for classes, pool, shape in ((0, None, 2), (0, "", 4), (3, "max", 2)):
        model.reset_classifier(classes, pool)
        assert model(x.double()).ndim == shape
    assert (model.num_classes, model.head.fc.weight.dtype, model.head.fc.weight.device.type) == (
        3, torch.float64, "meta",
    )  # fmt: skip


def test_timms_own_loader_takes_our_files(tmp_path: Path) -> None:
    trained = small_model()
    for name in ("w.safetensors", "w.pt"):
        save_weights(trained, tmp_path / name)
        model = create(num_classes=5)
        load_checkpoint(model, str(tmp_path / name))
        assert torch.equal(model.norm.weight, trained.norm.weight)
        assert json.loads(json.dumps(model.default_cfg["mean"])) == [0.485, 0.456, 0.406]
