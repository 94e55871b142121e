"""From a name in the table of peers to a model."""

from collections.abc import Callable
from typing import Any

from sequencer2d.peers.base import Peer
from sequencer2d.peers.config import CycleMLPConfig, GFNetConfig, PeerConfig, PVTConfig, T2TViTConfig, ViPConfig
from sequencer2d.peers.cyclemlp import CycleMLP
from sequencer2d.peers.gfnet import GFNet
from sequencer2d.peers.pvt import PVT
from sequencer2d.peers.t2t_vit import T2TViT
from sequencer2d.peers.variants import peer_config
from sequencer2d.peers.vip import ViP

FAMILIES: dict[type[PeerConfig], Callable[..., Peer]] = {
    ViPConfig: ViP,
    CycleMLPConfig: CycleMLP,
    GFNetConfig: GFNet,
    T2TViTConfig: T2TViT,
    PVTConfig: PVT,
}


def build_peer(name: str, **overrides: Any) -> Peer:
    """The peer `name` with random weights, in training mode on the CPU.

    Args:
        name: one of `list_peers()`.
        **overrides: any field of its configuration.

    Raises:
        ConfigError: an unknown name or option, or a value that does not fit.
    """
    config = peer_config(name, **overrides)
    return FAMILIES[type(config)](config, name)
