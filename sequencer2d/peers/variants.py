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


def list_peers(filter: str = "*") -> list[str]:
    """Return the names of the peers that match a shell pattern such as "gfnet_*", in the table's order."""
    return [name for name in PEERS if fnmatch.fnmatchcase(name, filter)]


def peer_config(name: str, **overrides: Any) -> PeerConfig:
    """Return the row `name` of the table of peers, with `overrides` of its fields.

    Raises:
        ConfigError: no such peer or field (close matches are listed), or a value that does not fit.
    """
    if name not in PEERS:
        raise ConfigError(f"no peer {name!r}; {did_you_mean(name, PEERS)}")
    return PEERS[name].replace(**overrides)
