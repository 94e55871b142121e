"""All sizes of all peers, in one table. A variant is a row; any field of it can be overridden."""

import fnmatch
from typing import Any

from sequencer2d.errors import ConfigError, did_you_mean
from sequencer2d.peers.config import CycleMLPConfig, GFNetConfig, PeerConfig, PVTConfig, T2TViTConfig, ViPConfig

_GFNET_S, _GFNET_B = ((19,), (384,)), ((19,), (512,))
_GFNET_WIDE = (96, 192, 384, 768)
_PYRAMID = (64, 128, 320, 512)


def _gfnet(depths: tuple[int, ...], dims: tuple[int, ...], **options: Any) -> GFNetConfig:
    return GFNetConfig(depths=depths, dims=dims, **options)


def _pyramid(depths: tuple[int, ...], dims: tuple[int, ...], layer_scale: float) -> GFNetConfig:
    return GFNetConfig(depths=depths, dims=dims, patch_size=4, layer_scale=layer_scale)


def _vip(
    depths: tuple[int, ...], dims: tuple[int, ...], segments: tuple[int, ...] = (32, 16, 16, 16), **options: Any
) -> ViPConfig:
    return ViPConfig(depths=depths, dims=dims, segments=segments, **options)


def _cycle(depths: tuple[int, ...], mlp_ratios: tuple[int, ...] = (4, 4, 4, 4), **options: Any) -> CycleMLPConfig:
    return CycleMLPConfig(depths=depths, mlp_ratios=mlp_ratios, **({"dims": _PYRAMID} | options))


def _t2t(depth: int, dim: int, heads: int) -> T2TViTConfig:
    return T2TViTConfig(depths=(depth,), dims=(dim,), heads=heads)


def _pvt(*depths: int) -> PVTConfig:
    return PVTConfig(depths=depths, dims=_PYRAMID, crop_pct=0.875)


PEERS: dict[str, PeerConfig] = {
    # Vision Permutators; the number is the size of a patch.
    "vip_s14": _vip((4, 3, 8, 3), (384,) * 4, (16,) * 4, patch_size=14),
    "vip_s7": _vip((4, 3, 8, 3), (192, 384, 384, 384)),
    "vip_m7": _vip((4, 3, 14, 3), (256, 256, 512, 512), (32, 32, 16, 16)),
    "vip_l7": _vip((8, 8, 16, 4), (256, 512, 512, 512), crop_pct=0.875),
    # CycleMLP.
    "cyclemlp_b1": _cycle((2, 2, 4, 2)),
    "cyclemlp_b2": _cycle((2, 3, 10, 3)),
    "cyclemlp_b3": _cycle((3, 4, 18, 3), (8, 8, 4, 4)),
    "cyclemlp_b4": _cycle((3, 8, 27, 3), (8, 8, 4, 4), crop_pct=0.875),
    "cyclemlp_b5": _cycle((3, 4, 24, 3), dims=(96, 192, 384, 768), crop_pct=0.875),
    # Global Filter Networks: FFT, a learned filter, inverse FFT. "h" marks the hierarchical ones.
    "gfnet_ti": _gfnet((12,), (256,)),
    "gfnet_xs": _gfnet((12,), (384,)),
    "gfnet_s": _gfnet(*_GFNET_S),
    "gfnet_b": _gfnet(*_GFNET_B),
    "gfnet_s_384": _gfnet(*_GFNET_S, img_size=(384, 384)),
    "gfnet_b_384": _gfnet(*_GFNET_B, img_size=(384, 384)),
    "gfnet_h_ti": _pyramid((3, 3, 10, 3), (64, 128, 256, 512), 1e-3),
    "gfnet_h_s": _pyramid((3, 3, 10, 3), _GFNET_WIDE, 1e-5),
    "gfnet_h_b": _pyramid((3, 3, 27, 3), _GFNET_WIDE, 1e-6),
    # Tokens-to-token ViTs; the number is the depth.
    "t2t_vit_t_14": _t2t(14, 384, 6),
    "t2t_vit_t_19": _t2t(19, 448, 7),
    "t2t_vit_t_24": _t2t(24, 512, 8),
    # Pyramid Vision Transformers, version 1.
    "pvt_tiny": _pvt(2, 2, 2, 2),
    "pvt_small": _pvt(3, 4, 6, 3),
    "pvt_medium": _pvt(3, 4, 18, 3),
    "pvt_large": _pvt(3, 8, 27, 3),
}

COSTS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "vip_s14": (29_892_904, 6_855_613_440, (14, 14, 14, 14)),
    "vip_s7": (25_114_984, 6_901_767_168, (7, 14, 14, 14)),
    "vip_m7": (55_272_488, 16_284_307_456, (7, 7, 14, 14)),
    "vip_l7": (87_784_936, 24_340_320_256, (7, 14, 14, 14)),
    "cyclemlp_b1": (15_155_400, 2_121_523_200, (4, 8, 16, 32)),
    "cyclemlp_b2": (26_802_504, 3_875_766_272, (4, 8, 16, 32)),
    "cyclemlp_b3": (38_385_720, 6_830_968_832, (4, 8, 16, 32)),
    "cyclemlp_b4": (51_796_552, 10_027_163_648, (4, 8, 16, 32)),
    "cyclemlp_b5": (75_747_280, 12_232_436_736, (4, 8, 16, 32)),
    "gfnet_ti": (7_511_784, 1_271_916_544, (16,)),
    "gfnet_xs": (15_985_768, 2_832_718_848, (16,)),
    "gfnet_s": (24_869_608, 4_451_195_904, (16,)),
    "gfnet_b": (43_120_616, 7_887_376_384, (16,)),
    "gfnet_s_384": (27_933_928, 13_080_321_024, (16,)),
    "gfnet_b_384": (47_206_376, 23_178_235_904, (16,)),
    "gfnet_h_ti": (15_085_096, 2_039_664_640, (4, 8, 16, 32)),
    "gfnet_h_s": (32_162_632, 4_581_636_096, (4, 8, 16, 32)),
    "gfnet_h_b": (53_744_200, 8_512_223_232, (4, 8, 16, 32)),
    "t2t_vit_t_14": (21_541_070, 6_088_721_920, (16,)),
    "t2t_vit_t_19": (39_172_942, 9_784_935_552, (16,)),
    "t2t_vit_t_24": (64_101_454, 14_967_128_064, (16,)),
    "pvt_tiny": (13_229_288, 1_932_911_616, (4, 8, 16, 32)),
    "pvt_small": (24_485_864, 3_815_701_504, (4, 8, 16, 32)),
    "pvt_medium": (44_208_104, 6_659_175_424, (4, 8, 16, 32)),
    "pvt_large": (61_369_320, 9_813_765_632, (4, 8, 16, 32)),
}
"""Parameters, multiply-accumulates of one image of the model's own size, strides of the stages.

Counting takes torch and seconds.
"""


def list_peers(filter: str = "*") -> list[str]:
    """Return the names of the peers that match a shell pattern such as `"gfnet_*"`, in the table's order."""
    return [name for name in PEERS if fnmatch.fnmatchcase(name, filter)]


def peer_config(name: str, **overrides: Any) -> PeerConfig:
    """Return the row `name` of the table of peers, with `overrides` of its fields.

    Raises:
        ConfigError: no such peer or field (close matches are listed), or a value that does not fit.
    """
    if name not in PEERS:
        raise ConfigError(f"no peer {name!r}; {did_you_mean(name, PEERS)}")
    return PEERS[name].replace(**overrides)
