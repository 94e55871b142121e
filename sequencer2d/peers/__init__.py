"""The models that the paper compares Sequencer with and that no maintained library holds, one file a family.

Names are imported when they are first used: the table answers without loading torch.
"""

from typing import TYPE_CHECKING

from sequencer2d.lazy import lazy_names

if TYPE_CHECKING:
    from sequencer2d.peers.base import Peer
    from sequencer2d.peers.config import PeerConfig
    from sequencer2d.peers.factory import build_peer
    from sequencer2d.peers.variants import PEERS, list_peers, peer_config

__all__ = ["PEERS", "Peer", "PeerConfig", "build_peer", "list_peers", "peer_config"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "PEERS": "variants",
        "Peer": "base",
        "PeerConfig": "config",
        "build_peer": "factory",
        "list_peers": "variants",
        "peer_config": "variants",
    },
)
