"""Every family keeps the contract of timm's image models."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models._manipulate import group_parameters
from timm.optim import param_groups_weight_decay

from sequencer2d import create_model, register_timm
from sequencer2d.errors import ConfigError, InputError
from sequencer2d.models import save_weights
from sequencer2d.peers import build_peer
from sequencer2d.peers.config import count_maps
from tests.peers.small import SMALL, images, small_peer

every = pytest.mark.parametrize("name", SMALL)


@every
def test_logits_are_the_head_of_the_features(name: str) -> None:
    model, x = small_peer(name), images(name)
    features = model.forward_features(x)
    logits = model(x)
    assert logits.shape == (2, 5)
    assert torch.equal(model.forward_head(features), logits)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features)
    torch.testing.assert_close(model.get_classifier()(pooled), logits)


@every
def test_the_classifier_is_replaced_and_removed(name: str) -> None:
    model, x = small_peer(name).double(), images(name).double()
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    assert model(x).dtype == torch.float64
    assert (model.num_classes, model.pretrained_cfg["num_classes"]) == (3, 3)
    assert model.get_classifier().bias.abs().max() == 0
    model.reset_classifier(0)
    assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
    with pytest.raises(ConfigError, match="global_pool='median'"):
        model.reset_classifier(3, "median")


@every
def test_the_mean_of_all_tokens_is_a_pool(name: str) -> None:
    model, x = small_peer(name, global_pool="avg"), images(name)
    features = model.forward_features(x)
    maps = model.forward_intermediates(x, 1, norm=True, intermediates_only=True)[0]
    torch.testing.assert_close(model.forward_head(features, pre_logits=True), maps.mean(dim=(2, 3)))


@every
def test_maps_are_as_described(name: str) -> None:
    model, x = small_peer(name), images(name)
    features, maps = model.forward_intermediates(x)
    assert torch.equal(features, model.forward_features(x))
    assert len(maps) == len(model.feature_info) == count_maps(model.config.depths)
    modules = dict(model.named_modules())
    for found, info in zip(maps, model.feature_info, strict=True):
        expected = (info["num_chs"], *(side // info["reduction"] for side in x.shape[-2:]))
        assert tuple(found.shape) == (2, *expected)
        assert found.is_contiguous()
        assert info["module"] in modules
    assert len(model.forward_intermediates(x, [0], stop_early=True, intermediates_only=True)) == 1
    nhwc = model.forward_intermediates(x, output_fmt="NHWC", intermediates_only=True)
    assert all(torch.equal(a.permute(0, 2, 3, 1), b) for a, b in zip(maps, nhwc, strict=True))


@every
@pytest.mark.parametrize("indices", [None, (1, 0), (-1,)])
def test_extractors_of_features_give_the_same_maps(name: str, indices: Any) -> None:
    x = images(name)
    pruned = small_peer(name)
    pruned.prune_intermediate_layers(tuple(range(count_maps(pruned.config.depths))))
    expected = pruned.forward_intermediates(x, indices, intermediates_only=True)
    if name != "pvt_small":  # whose class token goes with the head
        full = small_peer(name).forward_intermediates(x, indices, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(full, expected, strict=True))
    extractor = create_model(name, features_only=True, out_indices=indices, **SMALL[name]).eval()
    extractor.model.load_state_dict(small_peer(name).state_dict(), strict=False)
    found = extractor(x)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert extractor.feature_info.channels() == [m.shape[1] for m in expected]
    assert extractor.feature_info.reduction() == [x.shape[-1] // m.shape[-1] for m in expected]
    sum(m.square().mean() for m in found).backward()
    unused = [key for key, p in extractor.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused


@every
def test_images_of_another_kind_are_refused(name: str) -> None:
    model, x = small_peer(name), images(name)
    with pytest.raises(InputError, match="4 channels"):
        model(images(name, channels=4))
    with pytest.raises(InputError, match="floating point"):
        model(x.to(torch.uint8))
    with pytest.raises(InputError, match="4 axes"):
        model(x[0])


@every
def test_a_model_of_one_size_says_so(name: str) -> None:
    model, other = small_peer(name), torch.randn(1, 3, 64, 64)
    assert model.pretrained_cfg["fixed_input_size"] == (name in ("vip_m7", "gfnet_s", "gfnet_h_s"))
    if model.pretrained_cfg["fixed_input_size"]:
        with pytest.raises(InputError, match="64×64 pixels; this model takes"):
            model(other)
    else:
        assert model(other).shape == (1, 5)


@every
def test_the_memory_format_changes_no_number(name: str) -> None:
    model, x = small_peer(name).double(), images(name).double()
    expected = model(x)
    expected.square().sum().backward()
    other = small_peer(name).double().to(memory_format=torch.channels_last)
    found = other(x.to(memory_format=torch.channels_last))
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for (key, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, two.grad, msg=key)


@every
@pytest.mark.parametrize("of_weights", [False, True], ids=["autocast", "weights"])
def test_sixteen_bits_come_close(name: str, of_weights: bool) -> None:
    model, x = small_peer(name), images(name)
    expected = model(x)
    if of_weights:
        found = model.bfloat16()(x.bfloat16())
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = model(x)
    assert found.dtype == torch.bfloat16
    budget = 8 * torch.finfo(torch.bfloat16).eps * expected.abs().max()  # a rounding for each step of a small model
    assert (found.float() - expected).abs().max() < budget
    found.float().square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@every
def test_images_of_one_channel(name: str) -> None:
    model = small_peer(name, in_chans=1)
    assert model(images(name, channels=1)).shape == (2, 5)
    assert resolve_model_data_config(model)["input_size"] == (1, *SMALL[name]["img_size"])


@every
def test_recomputed_blocks_give_the_same_gradients(name: str) -> None:
    model, x = small_peer(name), images(name)
    model(x).square().sum().backward()
    again = copy.deepcopy(model)
    again.zero_grad()
    again.set_grad_checkpointing()
    again(x).square().sum().backward()
    for (key, one), two in zip(model.named_parameters(), again.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None) == (not one.requires_grad), key
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, msg=key)


@every
def test_stochastic_depth_rises_linearly(name: str) -> None:
    model = small_peer(name, drop_path_rate=0.3)
    paths = [m.drop_prob for m in model.modules() if hasattr(m, "drop_prob")]
    per_block = sorted({0.0, *paths})  # timm's blocks have no layer for a rate of 0
    blocks = sum(model.config.depths)
    assert per_block == pytest.approx([0.3 * i / (blocks - 1) for i in range(blocks)])
    assert paths == sorted(paths)
    assert paths[-1] == pytest.approx(0.3)


@every
def test_parameters_are_grouped_by_depth(name: str) -> None:
    model = small_peer(name)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(groups) == {key for key, _ in model.named_parameters()}
    order = [
        groups[key] for key, _ in model.named_parameters() if ".norm1.weight" in key and "tokens_to_token" not in key
    ]
    assert order == sorted(order)
    assert len(set(order)) == len(order) == sum(model.config.depths)
    assert groups["norm.weight"] == max(order)
    assert groups["head.weight"] >= max(order)


@every
def test_what_does_not_decay_exists(name: str) -> None:
    model = build_peer(name)
    names = {key for key, _ in model.named_parameters()}
    undecayed = model.no_weight_decay()
    assert undecayed - names <= {"cls_token"}
    no_decay, _ = param_groups_weight_decay(model, 0.05, no_weight_decay_list=undecayed)
    assert no_decay["weight_decay"] == 0.0


@every
def test_timm_creates_it_on_request(name: str) -> None:
    register_timm()
    x = images(name)
    model = timm.create_model(f"s2d_{name}", num_classes=4, drop_path_rate=0.1, **SMALL[name]).eval()
    assert model(x).shape == (2, 4)
    assert resolve_model_data_config(model)["input_size"] == (3, *SMALL[name]["img_size"])
    assert model.pretrained_cfg["num_classes"] == 4
    extractor = timm.create_model(f"s2d_{name}", features_only=True, **SMALL[name]).eval()
    assert [m.shape[1] for m in extractor(x)] == extractor.feature_info.channels()
    with pytest.raises(TypeError, match="has no option 'widths'"):
        timm.create_model(f"s2d_{name}", widths=(1,))


@every
def test_a_run_of_ours_is_loaded_again(name: str, tmp_path: Path) -> None:
    from sequencer2d.evaluation.subject import load_subject

    model, size = small_peer(name), SMALL[name]["img_size"]
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "crop_pct": 1.0}
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in SMALL[name].items()}
    meta = {
        "format": 1, "model": name, "overrides": options, "num_classes": 5, "in_chans": 3,
        "class_names": list("abcde"), "input": {"size": list(size), **said},
    }  # fmt: skip
    save_weights(model, tmp_path / "best.safetensors", meta)
    subject = load_subject(tmp_path / "best.safetensors")
    x = images(name)
    assert torch.equal(subject.model(x), model(x))
    assert subject.class_names == tuple("abcde")
    assert (subject.data.size, subject.data.mean) == (size, (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    "name, options, complaint",
    [
        ("gfnet_s", {"dim": (8,)}, r"no option 'dim'; did you mean dims"),
        ("gfnet_s", {"dims": (8, 8)}, "one value for each of 1 stages"),
        ("gfnet_s", {"dims": ("a",)}, "a positive integer for each stage"),
        ("gfnet_s", {"depths": ()}, "a positive integer for each stage"),
        ("gfnet_s", {"patch_size": "x"}, "a positive integer"),
        ("gfnet_s", {"mlp_ratio": 0}, "a positive number"),
        ("gfnet_s", {"layer_scale": "small"}, "a number, or none"),
        ("gfnet_s", {"drop_path_rate": 1}, "drop_path_rate=1"),
        ("gfnet_s", {"num_classes": -1}, "num_classes=-1"),
        ("gfnet_s", {"img_size": (1, 2, 3)}, "img_size="),
        ("gfnet_s", {"img_size": None}, "img_size=None"),
        ("gfnet_s", {"crop_pct": 1.5}, "crop_pct=1.5"),
        ("gfnet_s", {"global_pool": "token"}, "expected one of 'avg', 'max', ''"),
        ("pvt_tiny", {"global_pool": "max"}, "expected one of 'token', 'avg', ''"),
        ("pvt_tiny", {"heads": (3, 2, 5, 8)}, "the heads must divide the width"),
        ("t2t_vit_t_14", {"heads": 7}, "whose width the heads divide"),
        ("t2t_vit_t_14", {"depths": (1, 1), "dims": (6, 6)}, "T2T-ViT has one stage"),
        ("gfnet_z", {}, "no peer 'gfnet_z'; did you mean gfnet_"),
    ],
)
def test_options_that_do_not_fit_are_named(name: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build_peer(name, **options)


def test_a_mistyped_name_finds_peers_too() -> None:
    with pytest.raises(ConfigError, match=r"no model 'gfnet_hs'; did you mean .*gfnet_h_s"):
        create_model("gfnet_hs")
