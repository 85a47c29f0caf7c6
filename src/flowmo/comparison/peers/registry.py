"""Other tokenizers by name: which file each takes, where its authors publish it, and its loading (Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import ConfigError, WeightsError
from ...metrics.torchscript import read_tensors
from ...weights.official import open_official
from .cosmos import cosmos
from .llamagen import llamagen
from .maskbit import maskbit
from .network import PeerNetwork, State
from .open_magvit2 import averaged, open_magvit2
from .titok import titok


@dataclass(frozen=True)
class PublishedPeer:
    """A tokenizer of other authors: its files, where they are published, and how they are loaded."""

    title: str  # as in Table 1
    files: tuple[str, ...]  # their names where they are published; of a pair, the second lies beside the first
    source: str  # the repository on the Hugging Face hub
    build: Callable[[State, str], PeerNetwork]  # state dict -> network whose weights are not there yet
    wrapped: tuple[str, ...] = ()  # keys under which a file may hold its state dict, in the order of preference
    prepare: Callable[[State], dict[str, Tensor]] = dict  # applied to the state dict before it is built from


def _titok(name: str, label: str) -> PublishedPeer:
    return PublishedPeer(f"TiTok-{label}", ("model.safetensors",), f"yucornetto/tokenizer_titok_{name}_imagenet", titok)


def _maskbit(bits: int) -> PublishedPeer:
    name = f"maskbit_tokenizer_{bits}bit"
    return PublishedPeer(f"MaskBit, {bits} bits", (f"{name}.bin",), f"markweber/{name}", maskbit)


def _cosmos(name: str) -> PublishedPeer:
    source = f"nvidia/Cosmos-0.1-Tokenizer-{name}"
    return PublishedPeer(f"Cosmos {name}", ("encoder.jit", "decoder.jit"), source, cosmos)


def _magvit(name: str, file: str, title: str) -> PublishedPeer:
    source = f"TencentARC/Open-MAGVIT2-Tokenizer-{name}"
    return PublishedPeer(title, (file,), source, open_magvit2, ("state_dict",), averaged)


_LLAMAGEN = (llamagen, ("ema", "model", "state_dict"))
PEERS: dict[str, PublishedPeer] = {
    "llamagen-ds16": PublishedPeer("LlamaGen ds16", ("vq_ds16_c2i.pt",), "FoundationVision/LlamaGen", *_LLAMAGEN),
    "llamagen-ds8": PublishedPeer("LlamaGen ds8", ("vq_ds8_c2i.pt",), "FoundationVision/LlamaGen", *_LLAMAGEN),
    "open-magvit2": _magvit("256-resolution", "imagenet_256_L.ckpt", "Open-MAGVIT2"),
    "open-magvit2-ds8": _magvit("128-resolution", "imagenet_128_L.ckpt", "Open-MAGVIT2 ds8"),
    "titok-s128": _titok("s128", "S-128"),
    "titok-b64": _titok("b64", "B-64"),
    "titok-l32": _titok("l32", "L-32"),
    "titok-sl256": _titok("sl256_vq8k", "SL-256"),
    "titok-bl128": _titok("bl128_vq8k", "BL-128"),
    "titok-bl64": _titok("bl64_vq8k", "BL-64"),
    **{f"maskbit-{bits}": _maskbit(bits) for bits in (10, 12, 14, 16, 18)},
    "cosmos-di8": _cosmos("DI8x8"),
    "cosmos-di16": _cosmos("DI16x16"),
}
CONTINUOUS = {"cosmos-ci8": "cosmos-di8", "cosmos-ci16": "cosmos-di16"}
"""Tokenizers of the same authors that have no tokens, and the discrete one beside each."""


def load_peer(name: str, path: str | Path) -> PeerNetwork:
    """Return the network of that name with the weights of a file as its authors publish it.

    path: the file; of a pair, either one.
    Nothing of the file is run.
    Raises ConfigError for an unknown name.
    Raises WeightsError naming a key that is missing, unknown or of another shape, or for a file that is damaged or
    holds more than tensors.
    """
    if name not in PEERS:
        raise ConfigError(f"no tokenizer {name!r}; the known ones are {', '.join(PEERS)}")
    peer, path = PEERS[name], Path(path)
    if len(peer.files) > 1 and path.suffix == ".jit":
        state: dict[str, Tensor] = {}
        for file in peer.files:
            state |= read_state(path.with_name(file))
    else:
        state = read_state(path, peer.wrapped)
    return build_peer(name, state, str(path))


def build_peer(name: str, state: State, where: str = "the state dict") -> PeerNetwork:
    """Return the network of that name with these weights. Raises WeightsError as :func:`load_peer` does."""
    state = PEERS[name].prepare(state)
    with torch.device("meta"):
        network = PEERS[name].build(state, where)
    network.load(state, where)
    return network


def read_state(path: Path, wrapped: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors, .jit or PyTorch file by their keys.

    wrapped: keys under which the file may hold them, in the order of preference.
    Raises WeightsError for a file that cannot be read or holds no tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path} cannot be read as safetensors: {error}") from None
    if path.suffix == ".jit":
        try:
            return read_tensors(path.read_bytes())
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error.strerror}); both files of the pair are needed") from None
    content: Mapping[Any, Any] = open_official(path)
    for key in wrapped:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not state:
        raise WeightsError(f"{path} holds no tensors; its keys are {', '.join(map(str, list(content)[:5]))}")
    return state
