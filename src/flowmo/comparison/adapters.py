"""Tokenizers, ours and other people's, behind one protocol, to be measured on the same images (Table 1).

Each says how its bytes are counted: tokens times their bits, rounded up to whole bytes for one image, without header.
Latents that are not integers have no such number, and neither has a function that does not say.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import ConfigError, WeightsError
from ..image_utils.regular import check_regular
from ..metrics.pixels import thumbnail
from ..quantize.tokens import payload_size
from ..tokenizer import FlowMo

UNTRUSTED = (
    "{what} is code that runs with all your rights once it is loaded; if you trust its source, say so with --trust"
)
DIFFUSERS = ("VQModel", "AutoencoderKL", "AutoencoderTiny")


class Peer(Protocol):
    """A tokenizer in a comparison: it reconstructs images and says how many bytes each costs."""

    name: str  # as in tables
    counting: str  # how its bytes are counted, in words

    def reconstruct(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return the reconstructions, in [-1, 1], of images B 3 H W in [-1, 1].

        seeds: one an image, for tokenizers that draw random numbers.
        The batch that an image stands in changes nothing.
        """

    def bytes_per_image(self, height: int, width: int) -> int | None:
        """Return the bytes of an image of that size, None where there is no such number.

        An image of that size must have been reconstructed before.
        """


@dataclass
class FlowMoPeer:
    """One of our models as a peer."""

    name: str  # as in tables
    model: FlowMo  # that tokenizes and detokenizes, on its own device
    settings: dict[str, Any]  # of ``FlowMo.detokenize``; what is not named is stored with the model
    counting: str = "tokens x bits, without the 24 bytes of a .flowmo file's header"  # how bytes are counted, in words
    bits: int | None = None  # the first so many of each token, of a model that codes at any rate; None for all

    def reconstruct(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        tokens = self.model.tokenize(images.to(self.model.device), self.bits)
        return self.model.detokenize(tokens, **self.settings, seed=list(seeds)).to(images.device)

    def bytes_per_image(self, height: int, width: int) -> int | None:
        c = self.model.config
        return payload_size(c.tokens_of((height, width)), self.bits or c.bits_per_token)


def at_rates(name: str, model: FlowMo, targets: Sequence[int], size: tuple[int, int]) -> list[FlowMoPeer]:
    """Return the model as a peer at all of its bits and, where it codes at any rate, at each lower target.

    targets: numbers of bytes an image. size: (height, width) in pixels.
    """
    c = model.config
    own = FlowMoPeer(name, model, {})
    if c.transform is None:
        return [own]
    tokens = c.tokens_of(size)
    bits = {target * 8 // tokens // c.bits_per_group * c.bits_per_group for target in targets}
    lower = [FlowMoPeer(name, model, {}, bits=count) for count in sorted(bits) if 0 < count < c.bits_per_token]
    whole = payload_size(tokens, c.bits_per_token)
    return lower + ([own] if not targets or max(targets) >= whole else [])


@dataclass
class ThumbnailPeer:
    """A thumbnail as a peer, RGB of 18 bits a pixel and enlarged bicubically, which any code must beat."""

    size: int  # bytes that the thumbnail has at most
    name: str = "thumbnail"  # as in tables
    counting: str = "18 bits a pixel of a square thumbnail"  # how its bytes are counted, in words

    def reconstruct(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        return thumbnail(images, 8 * self.size)

    def bytes_per_image(self, height: int, width: int) -> int | None:
        return payload_size(math.isqrt(8 * self.size // 18) ** 2, 18)


class PairPeer:
    """An encoder and a decoder as a peer: images to tokens (integers) or latents (not integers), and back.

    encode: may return several things, of which the first is what the decoder gets.
    bits_per_token: of one integer; without it, or for latents, the peer has no number of bytes.
    """

    def __init__(
        self,
        name: str,
        encode: Callable[[Tensor], Any],
        decode: Callable[[Tensor], Any],
        bits_per_token: float | None = None,
    ) -> None:
        self.name, self.encode, self.decode, self.bits_per_token = name, encode, decode, bits_per_token
        self.counting = "not stated" if bits_per_token is None else f"tokens x {bits_per_token:g} bits"
        self._bytes: dict[tuple[int, int], int | None] = {}

    @torch.no_grad()
    def reconstruct(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        tokens = _tensor(self.encode(images), f"the encoder of {self.name}")
        if tokens.is_floating_point():
            self.counting = "none: the latents are not integers"
        elif self.bits_per_token is not None:
            count = tokens.numel() // len(images)
            self._bytes[images.shape[2], images.shape[3]] = payload_size(count, self.bits_per_token)
        return _images(self.decode(tokens), images, self.name)

    def bytes_per_image(self, height: int, width: int) -> int | None:
        return self._bytes.get((height, width))


class FunctionPeer:
    """A function of images B 3 H W in [-1, 1] to images, as a peer.

    bits_per_image: declared by whoever knows, or None.
    """

    def __init__(self, name: str, function: Callable[[Tensor], Any], bits_per_image: float | None = None) -> None:
        self.name, self.function, self.bits_per_image = name, function, bits_per_image
        self.counting = "not stated" if bits_per_image is None else f"declared: {bits_per_image:g} bits an image"

    @torch.no_grad()
    def reconstruct(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        return _images(self.function(images), images, self.name)

    def bytes_per_image(self, height: int, width: int) -> int | None:
        return None if self.bits_per_image is None else payload_size(1, self.bits_per_image)


def torchscript_pair(
    name: str, encoder: Path, decoder: Path, bits_per_token: float | None = None, trust: bool = False
) -> PairPeer:
    """Return the peer that two files of ``torch.jit.save`` make, on the CPU.

    Raises ConfigError without ``trust``, since ``torch.jit.load`` executes what is in them.
    Raises WeightsError for a file that cannot be loaded.
    """
    if not trust:
        raise ConfigError(UNTRUSTED.format(what="a TorchScript file"))

    def module(path: Path) -> Callable[[Tensor], Any]:
        try:
            return torch.jit.load(str(path), map_location="cpu").eval()
        except (OSError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{path}: not a TorchScript file that can be loaded ({_reason(error)})") from None

    return PairPeer(name, module(encoder), module(decoder), bits_per_token)


def diffusers_folder(name: str, folder: Path) -> Peer:
    """Return the peer that a local folder of diffusers holds: a VQModel, AutoencoderKL or AutoencoderTiny.

    The folder has config.json and safetensors, so that nothing in it is executed.
    Of the three a VQModel has bytes: its tokens times log2 of the size of its codebook.
    Raises WeightsError for a folder that cannot be loaded, ConfigError where diffusers is not installed.
    """
    try:
        check_regular(folder / "config.json")
        kind = json.loads((folder / "config.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise WeightsError(f"{folder}: no config.json of a diffusers model in it") from None
    if kind not in DIFFUSERS:
        raise WeightsError(f"{folder}: is a {kind}; of diffusers {', '.join(DIFFUSERS)} can be compared")
    try:
        import diffusers
    except ImportError:
        raise ConfigError("models of diffusers need it installed: pip install diffusers") from None
    try:
        settings = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
        model = getattr(diffusers, kind).from_pretrained(folder, **settings).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{folder}: cannot be loaded by diffusers ({_reason(error)})") from None

    if kind == "VQModel":
        quantize = model.quantize

        def encode(images: Tensor) -> Tensor:
            latents = model.encode(images).latents
            return quantize(latents)[2][2].view(len(latents), *latents.shape[-2:])  # B h w integers

        def decode(tokens: Tensor) -> Tensor:
            shape = (*tokens.shape, quantize.vq_embed_dim)
            if model.config.lookup_from_codebook:  # then it wants the integers themselves
                return model.decode(tokens, force_not_quantize=True, shape=shape).sample
            return model.decode(quantize.get_codebook_entry(tokens, shape), force_not_quantize=True).sample

        return PairPeer(name, encode, decode, math.log2(model.config.num_vq_embeddings))
    if kind == "AutoencoderKL":
        return PairPeer(name, lambda x: model.encode(x).latent_dist.mode(), lambda z: model.decode(z).sample)
    return PairPeer(name, lambda x: model.encode(x).latents, lambda z: model.decode(z).sample)


def python_function(place: str, trust: bool = False) -> Callable[[Tensor], Any]:
    """Return the function that "module:function" names; modules of the current folder are found too.

    Raises ConfigError without ``trust``, since importing executes the module, or where there is no such function.
    """
    if not trust:
        raise ConfigError(UNTRUSTED.format(what=place))
    module_name, _, name = place.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # a module may raise anything
        raise ConfigError(f"{place}: cannot be imported ({_reason(error)}); give module:function") from None
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise ConfigError(f"{place}: is not a function")
    return function


def open_peer(spec: str, trust: bool = False) -> Peer:
    """Return the peer that one line of text describes; NAME is what tables call it.

    ``NAME=torchscript:ENCODER,DECODER[,bits_per_token=N]``, ``NAME=diffusers:FOLDER``,
    ``NAME=module:function[,bits_per_image=N]`` for image -> image, or
    ``NAME=module:function,decode=module:function[,bits_per_token=N]`` for image -> tokens and back.
    Raises ConfigError or WeightsError.
    """
    name, _, rest = spec.partition("=")
    options = dict(part.split("=", 1) for part in rest.split(",") if "=" in part)
    places = [part for part in rest.split(",") if "=" not in part]
    kind, _, first = places[0].partition(":") if places else ("", "", "")
    bits = {key: _bits(spec, value) for key, value in options.items() if key != "decode"}
    if name and first:
        match kind, len(places), sorted(options):
            case "torchscript", 2, [] | ["bits_per_token"]:
                return torchscript_pair(name, Path(first), Path(places[1]), bits.get("bits_per_token"), trust)
            case "diffusers", 1, []:
                return diffusers_folder(name, Path(first))
            case _, 1, [] | ["bits_per_image"]:
                return FunctionPeer(name, python_function(places[0], trust), bits.get("bits_per_image"))
            case _, 1, ["decode"] | ["bits_per_token", "decode"]:
                encode, decode = (python_function(place, trust) for place in (places[0], options["decode"]))
                return PairPeer(name, encode, decode, bits.get("bits_per_token"))
    raise ConfigError(
        f"{spec!r} does not name a tokenizer: write NAME=torchscript:ENCODER,DECODER,bits_per_token=N or "
        "NAME=diffusers:FOLDER or NAME=module:function,bits_per_image=N or "
        "NAME=module:encode,decode=module:decode,bits_per_token=N (the bits may be left out)"
    )


def _bits(spec: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise ConfigError(f"{spec!r}: {text!r} is not a number of bits")
    return value


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _tensor(output: Any, whose: str) -> Tensor:
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor):
        raise ConfigError(f"{whose} must return a tensor first, got {type(first).__name__}")
    return first


def _images(output: Any, images: Tensor, name: str) -> Tensor:
    result = _tensor(output, f"the decoder of {name}")
    if result.shape != images.shape or not result.is_floating_point():
        raise ConfigError(
            f"{name} must return float images of shape {tuple(images.shape)}, got {result.dtype} {tuple(result.shape)}"
        )
    return result.float().clamp(-1, 1)
