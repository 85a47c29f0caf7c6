"""Table 1's other tokenizers, written anew, from the weights as their authors publish them."""

from .network import PeerNetwork
from .registry import PEERS, PublishedPeer, build_peer, load_peer

__all__ = ["PEERS", "PeerNetwork", "PublishedPeer", "build_peer", "load_peer"]
