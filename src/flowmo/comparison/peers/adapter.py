"""Table 1's other tokenizers as methods of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...quantize.tokens import payload_size
from .network import PeerNetwork
from .registry import PEERS, load_peer


class PublishedPeerMethod:
    """A tokenizer of the registry as a ``Peer``: images B 3 H W in [-1, 1] go to its tokens and back."""

    def __init__(self, name: str, network: PeerNetwork, device: torch.device) -> None:
        self.name, self.network = name, network.to(device)
        self.counting = f"tokens x {network.bits_per_token} bits"
        self.device = device
        self._tokens: dict[tuple[int, int], int] = {}

    def reconstruct(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the reconstructions of images B 3 H W in [-1, 1] as the network makes them.

        Nothing is drawn, so the seeds change nothing.
        Raises ImageError for a size that the network does not take.
        """
        height, width = images.shape[2:]
        self.network.check_size(height, width)
        tokens = self.network.tokenize(images.to(self.device))
        self._tokens[height, width] = tokens[0].numel()
        return self.network.detokenize(tokens).to(images.device)

    def bytes_per_image(self, height: int, width: int) -> int | None:
        tokens = self._tokens.get((height, width))
        return None if tokens is None else payload_size(tokens, self.network.bits_per_token)


def published_peer(spec: str, device: torch.device) -> PublishedPeerMethod | None:
    """Return the peer of ``NAME=FILE`` with a name of the registry, None for any other text. Raises WeightsError."""
    name, _, path = spec.partition("=")
    if name not in PEERS or not path:
        return None
    return PublishedPeerMethod(PEERS[name].title, load_peer(name, Path(path).expanduser()), device)


def list_peers() -> list[list[str]]:
    """Return a row of name, title, files and source for each tokenizer of the registry."""
    return [[name, peer.title, " + ".join(peer.files), peer.source] for name, peer in PEERS.items()]
