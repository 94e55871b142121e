"""Numbers of the authors' code that neither shapes nor costs show: norms, first weights, heads, crops, paddings."""

from typing import Any

import pytest
import torch
from torch import nn

from sequencer2d.peers import PEERS, build_peer
from sequencer2d.peers.config import RULES, PeerConfig, PVTConfig, T2TViTConfig
from sequencer2d.peers.gfnet import GlobalFilter, resample_filter
from sequencer2d.peers.pvt import Block as PVTBlock
from sequencer2d.peers.t2t_vit import TokenTransformer, sinusoids
from sequencer2d.peers.weighted import Block as WeightedBlock
from sequencer2d.peers.weighted import Convolution
from tests.peers.formulas import in_play
from tests.peers.small import SMALL, images, small_peer

EPS = {
    "vip_m7": {1e-5}, "cyclemlp_b2": {1e-5}, "gfnet_s": {1e-6}, "gfnet_h_s": {1e-6}, "t2t_vit_t_19": {1e-5},
    "pvt_small": {1e-6, 1e-5},
}  # fmt: skip
"""Of layer norms; PVT's in patch embeddings and reduced attention have the larger one."""


@pytest.mark.parametrize("name", EPS)
def test_norms_have_the_authors_eps(name: str) -> None:
    model = small_peer(name)
    norms = {key: module.eps for key, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    assert set(norms.values()) == EPS[name]
    if name == "pvt_small":
        small = {key for key, eps in norms.items() if eps == 1e-5}
        assert small == {key for key in norms if key.startswith("patch_embed") or key.endswith("attn.norm")}


@pytest.mark.parametrize("name", SMALL)
def test_first_weights_are_truncated_normal_of_std_0_02(name: str) -> None:
    torch.manual_seed(0)
    model = build_peer(name, **{"num_classes": 50, **SMALL[name]})
    drawn = {f"{key}.weight": module.weight for key, module in model.named_modules() if isinstance(module, nn.Linear)}
    for key, parameter in model.named_parameters():
        embedding = key.startswith(("pos_embed", "cls_token")) and parameter.requires_grad
        if embedding or key.endswith("complex_weight") or ("sfc_" in key and key.endswith("weight")):
            drawn[key] = parameter
    for key, parameter in drawn.items():
        count = parameter.numel()
        near = pytest.approx(0.02, rel=0.1 if count > 1000 else 0.3 if count > 100 else 0.6)
        assert parameter.std().item() == near, key
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.bias is not None]
    assert not any(module.bias.any() for module in linear)


def test_attention_has_64_channels_a_head() -> None:
    for name, config in PEERS.items():
        if isinstance(config, PVTConfig):
            assert [dim // heads for dim, heads in zip(config.dims, config.heads, strict=True)] == [64] * 4, name
            assert config.reductions == (8, 4, 2, 1)
        elif isinstance(config, T2TViTConfig):
            assert config.dims == (64 * config.heads,), name


def test_peers_are_made_for_the_published_images() -> None:
    cropped = {name for name, config in PEERS.items() if config.crop_pct != 0.9}
    assert cropped == {"vip_l7", "cyclemlp_b4", "cyclemlp_b5", "pvt_tiny", "pvt_small", "pvt_medium", "pvt_large"}
    assert {PEERS[name].crop_pct for name in cropped} == {0.875}
    large = {name for name, config in PEERS.items() if config.img_size != (224, 224)}
    assert large == {"gfnet_s_384", "gfnet_b_384"}
    assert {PEERS[name].img_size for name in large} == {(384, 384)}
    for config in PEERS.values():
        rates = (config.drop_rate, config.drop_path_rate)
        assert (config.in_chans, config.num_classes, *rates) == (3, 1000, 0.0, 0.0)
    scales = {name: getattr(PEERS[name], "layer_scale", None) for name in PEERS}
    expected = {"gfnet_h_ti": 1e-3, "gfnet_h_s": 1e-5, "gfnet_h_b": 1e-6}
    assert {name: scale for name, scale in scales.items() if scale is not None} == expected


def test_a_models_description_in_timms_terms() -> None:
    assert small_peer("pvt_small", in_chans=1).pretrained_cfg == {
        "architecture": "pvt_small",
        "classifier": "head",
        "crop_mode": "center",
        "crop_pct": 0.875,
        "fixed_input_size": False,
        "input_size": (1, 48, 32),
        "interpolation": "bicubic",
        "label_descriptions": None,
        "label_names": None,
        "mean": (0.5,),
        "num_classes": 5,
        "pool_size": None,
        "std": (0.5,),
    }
    model = small_peer("gfnet_h_s")
    assert [sorted(info) for info in model.feature_info] == [["index", "module", "num_chs", "reduction"]] * 3
    assert [info["index"] for info in model.feature_info] == [0, 1, 2]


@pytest.mark.parametrize(
    ("rule", "fits", "others"),
    [
        (int, (1, 10**7), (0, 10**7 + 1, True, 1.0)),
        (float, (1e-9, 10**7, 0.5), (0, -1, 10**7 + 1, True, float("nan"), "1")),
        (str, ("",), (1,)),
        (tuple[int, ...], ((1, 2),), ((), (1, 0), [1])),
        (tuple[float, ...], ((0.5, 2),), ((), (0.0,), (True,))),
        ("img_size", ((1, 2),), ((1,), (1, 2, 3), (0, 1))),
        ("num_classes", (0, 1), (-1, 10**7 + 1, False)),
        ("crop_pct", (0.1, 1), (0, 1.01)),
        ("drop_rate", (0, 0.99), (-0.01, 1)),
        ("drop_path_rate", (0, 0.99), (-0.01, 1)),
        ("layer_scale", (None, 0, -1.0, -(10**7)), (True, "1", -(10**7) - 1)),
    ],
)
def test_limits_of_options(rule: Any, fits: tuple[Any, ...], others: tuple[Any, ...]) -> None:
    accepts = RULES[rule][1]
    assert [accepts(value) for value in fits] == [True] * len(fits)
    assert [accepts(value) for value in others] == [False] * len(others)


def test_a_config_takes_one_side_and_lists_and_a_single_block_has_no_stochastic_depth() -> None:
    config = PeerConfig(depths=[1], dims=[8], img_size=32, drop_path_rate=0.3)  # type: ignore[arg-type]
    assert (config.depths, config.img_size, config.drop_path_rates) == ((1,), (32, 32), ((0.0,),))
    rates = config.replace(depths=(1, 2), dims=(8, 8)).drop_path_rates
    assert rates == ((0.0,), (pytest.approx(0.15), pytest.approx(0.3)))
    assert config.global_pool == "avg"


def test_cyclemlps_stem_and_steps_pad_as_the_authors_do() -> None:
    with torch.device("meta"):
        model = build_peer("cyclemlp_b1")
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert [(one.kernel_size[0], one.stride[0], one.padding[0]) for one in convolutions] == [(7, 4, 2)] + [
        (3, 2, 1)
    ] * 3


def test_blocks_add_both_branches() -> None:
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    block: Any = in_play(PVTBlock(8, 2, 2, 2, 0.0))
    grid = (3, 4)
    between = x + block.attn(block.norm1(x), grid)
    torch.testing.assert_close(block(x, grid), between + block.mlp(block.norm2(between)))
    weighted: Any = in_play(WeightedBlock(8, nn.Linear(8, 8), 1.5, 0.0))
    between = x + weighted.attn(weighted.norm1(x))
    torch.testing.assert_close(weighted(x), between + weighted.mlp(weighted.norm2(between)))
    assert weighted.mlp.fc1.out_features == 12
    tokens: Any = in_play(TokenTransformer(8))
    narrow = tokens.attn(tokens.norm1(x))
    torch.testing.assert_close(tokens(x), narrow + tokens.mlp(tokens.norm2(narrow)))


def test_maps_lie_one_pixel_after_the_other() -> None:
    convolution = Convolution(3, 4, kernel_size=1)
    assert convolution(torch.randn(1, 5, 6, 3)).is_contiguous()
    assert small_peer("gfnet_s").patch_embed(images("gfnet_s")).is_contiguous()
    resampled = resample_filter(torch.randn(4, 3, 2, 2, dtype=torch.bfloat16), (6, 6))
    assert (resampled.is_contiguous(), resampled.dtype) == (True, torch.bfloat16)


def test_filters_in_16_bits_are_resampled_in_float32() -> None:
    weight = torch.randn(14, 8, 3, 2).bfloat16()
    assert torch.equal(resample_filter(weight, (24, 24)), resample_filter(weight.float(), (24, 24)).bfloat16())
    mixer = GlobalFilter(3, (4, 4)).requires_grad_(False)
    mixer.resample((6, 6))
    assert (mixer.grid, mixer.complex_weight.requires_grad) == ((6, 6), False)
    assert GlobalFilter(3, (4, 6)).complex_weight.shape == (4, 4, 3, 2)
    assert sinusoids(3, 4).dtype == torch.float32


@pytest.mark.parametrize("name", sorted({*SMALL} - {"vip_m7"}))
def test_parameters_of_another_size_are_leaves(name: str) -> None:
    model = small_peer(name)
    model.set_input_size((64, 48))
    assert all(parameter.is_leaf for parameter in model.parameters())


@pytest.mark.parametrize("checkpointing, gradients, calls", [(False, True, 1), (True, True, 2), (True, False, 1)])
def test_blocks_run_again_in_backward_where_it_is_asked_for(checkpointing: bool, gradients: bool, calls: int) -> None:
    model, counted = small_peer("gfnet_s"), []
    model.blocks[0].register_forward_pre_hook(lambda *_: counted.append(1))
    if checkpointing:
        model.set_grad_checkpointing()
    with torch.set_grad_enabled(gradients):
        loss = model(images("gfnet_s")).sum()
    if gradients:
        loss.backward()
    assert len(counted) == calls
    model.set_grad_checkpointing(False)
    assert not model.grad_checkpointing


def test_pools_and_the_head_by_hand() -> None:
    model, x = small_peer("gfnet_s"), images("gfnet_s")
    features = model.forward_features(x)
    for pool, expected in (("max", features.amax((1, 2))), ("avg", features.mean((1, 2))), ("", features)):
        model.reset_classifier(0, pool)
        torch.testing.assert_close(model.forward_head(features), expected)
    token = small_peer("t2t_vit_t_19")
    tokens = token.forward_features(images("t2t_vit_t_19"))
    torch.testing.assert_close(token.forward_head(tokens, pre_logits=True), tokens[:, 0])
    model.eval().reset_classifier(3, "avg")
    assert not model.head.training
    assert (model.config.num_classes, model.config.global_pool) == (3, "avg")


def test_only_the_last_map_is_normed_on_request() -> None:
    model, x = small_peer("gfnet_h_s"), images("gfnet_h_s")
    plain, normed = (
        model.forward_intermediates(x, norm=norm, output_fmt="NHWC", intermediates_only=True) for norm in (False, True)
    )
    assert [torch.equal(a, b) for a, b in zip(plain, normed, strict=True)] == [True, True, False]
    torch.testing.assert_close(normed[2], model.norm(plain[2]))
    features, maps = model.forward_intermediates(x, (0, 1), stop_early=True, output_fmt="NHWC")
    assert torch.equal(features, maps[1])
    assert torch.equal(model.forward_intermediates(x, (0,))[0], model.forward_features(x)), "all stages run by default"


def test_pruning_removes_what_is_asked_for() -> None:
    model = small_peer("gfnet_h_s")
    assert model.prune_intermediate_layers((0, 2), prune_head=False) == [0, 2]
    assert (type(model.norm), type(model.head), model.num_classes) == (nn.LayerNorm, nn.Linear, 5)
    model.prune_intermediate_layers(1, prune_norm=True, prune_head=False)
    assert (type(model.norm), type(model.head)) == (nn.Identity, nn.Linear)
    model.prune_intermediate_layers((1,), prune_head=False)
    assert (type(model.head), model.num_classes, model.global_pool) == (nn.Identity, 0, "")
    assert (model.num_features, model.head_hidden_size, len(model.feature_info)) == (12, 12, 2)
    assert small_peer("gfnet_h_s").prune_intermediate_layers() == [2]
    whole = small_peer("gfnet_h_s")
    whole.prune_intermediate_layers()
    assert (type(whole.norm), type(whole.head)) == (nn.LayerNorm, nn.Identity)
