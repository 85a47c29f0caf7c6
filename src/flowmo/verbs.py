"""What users call of a model, ``tokenize``, ``detokenize``, ``reconstruct``, and how it runs for them.

The model itself, ``tokenizer.py``, knows no device, no precision of its weights, no compiled passes and no batches that
are cut into chunks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arch import Condition, Decoder, Encoder, TransformEncoder
from .config import FlowMoConfig, SamplerConfig, from_dict
from .errors import ConfigError
from .fingerprint import fingerprint_of
from .flow import seeded_noise
from .image_utils import Images, Size, as_batch, as_images
from .image_utils.scale import to_float, to_uint8
from .inference import Inference, own_precision, prepare
from .quantize import Quantized, Quantizer
from .quantize.continuous import NO_TOKENS
from .quantize.tokens import Tokens
from .tiles import decode_tiled, encode_tiled, patch_of


def check_tokens(tokens: Tokens, config: FlowMoConfig) -> None:
    """Raise ConfigError for tokens that a model of this configuration cannot decode.

    A model with a transform takes any number of groups up to its own.
    """
    if not isinstance(tokens, Tokens):
        raise ConfigError(
            f"a model decodes Tokens, not an object of the type {type(tokens).__name__}; Tokens.from_numpy, from_bytes "
            "and load make them of integers, payloads and files, Tokens.concatenate one of several"
        )
    wanted = (config.tokens_of(tokens.image_size), config.num_groups, config.bits_per_group)
    found = (tokens.num_tokens, tokens.num_groups, tokens.bits_per_group)
    fewer = config.transform is not None and found[1] < wanted[1]
    if (found[0], found[2]) != (wanted[0], wanted[2]) or not (fewer or found[1] == wanted[1]):
        raise ConfigError(
            f"tokens are {found[0]} x {found[1]} groups of {found[2]} bits, but the "
            f"model decodes {wanted[0]} x {wanted[1]} of {wanted[2]}; use the model that they came from"
        )


def all_channels(code: Tensor, config: FlowMoConfig) -> Tensor:
    """Return a code B N K with zeros, which are neither sign, for the groups that were cut off."""
    if code.shape[-1] == config.latent_dim:
        return code
    groups = code.unflatten(-1, (config.bits_per_group, -1))  # channel = bit * G + group (A8)
    return F.pad(groups, (0, config.num_groups - groups.shape[-1])).flatten(-2)


def sampler_with(sampler: SamplerConfig, given: dict[str, Any]) -> SamplerConfig:
    """Return the sampler with what is given in place of its own; None leaves a setting as it is.

    Numbers of NumPy's and torch's are taken too. Raises ConfigError for a name that it does not have, or a wrong value.
    """
    changed = {name: value for name, value in given.items() if value is not None}
    return from_dict(
        SamplerConfig, vars(sampler) | {k: getattr(v, "item", lambda v=v: v)() for k, v in changed.items()}
    )


class Verbs(nn.Module, ABC):
    """The verbs of a tokenizer, for a module with its parts; none of them keeps gradients."""

    config: FlowMoConfig  # what the parts were made by
    encoder: Encoder | TransformEncoder  # from images to latents
    quantizer: Quantizer  # from latents to codes and tokens
    decoder: Decoder  # from codes and noisy images to velocities

    def __init__(self) -> None:
        super().__init__()
        self.inference = Inference()
        self.before_cast: tuple[int, int] | None = None  # fingerprints of coarser weights, and of what they were

    @abstractmethod
    def quantize(self, latent: Tensor) -> Quantized:
        """Return code, tokens and losses of a latent."""

    @abstractmethod
    def sample(self, given: Tensor | Condition, noise: Tensor, sampler: SamplerConfig | None = None) -> Tensor:
        """Return the images that the sampler makes of noise."""

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.decoder.readout.weight.device

    def prepare(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        compile: bool | str = False,
        chunk_size: int | None = None,
    ) -> Self:
        """Make this model ready to encode and decode, and return it; in place, as ``to`` does.

        dtype: of the weights; the sampler's state and steps stay float32.
        compile: whether the passes of both networks go through torch.compile, with CUDA graphs on a GPU; a name is one
        of its backends. A compiled model takes batches of ``chunk_size`` images alone: the verbs pad the last one, so
        choose a size that you fill. It compiles at the first call for each size of images; copies and saved models are
        not compiled.
        chunk_size: images at a time, by default as many as suit the device.
        Raises ConfigError for a device that is not there, or for settings that cannot be.
        """
        passes = (self.encoder.forward_blocks, self.decoder.forward_blocks)
        self.inference = prepare(self, *passes, device, dtype, compile, chunk_size)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply ``fn`` as any module does, but keep the fingerprint where weights become bfloat16.

        That precision is too coarse to show it.
        """
        weight = self.decoder.readout.weight
        coarser = not weight.is_meta and weight.dtype != torch.bfloat16 and fn(weight[:1]).dtype == torch.bfloat16
        before = self.fingerprint() if coarser else None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if before is not None:
            self.before_cast = (fingerprint_of(self.config, self.encoder, self.quantizer), before)
        return self

    @own_precision
    @torch.no_grad()
    def tokenize(self, images: Images, bits_per_token: int | None = None, size: Size | None = None) -> Tokens:
        """Return the tokens of images, on the CPU.

        images: a float tensor B 3 H W in [-1, 1], whose sides are multiples of the patch sizes; or a path, a Pillow
        image, a NumPy array, a uint8 tensor, or a list of these, which are brought to ``size``
        (:func:`flowmo.image_utils.as_images`).
        bits_per_token: only the first so many bits of each token, a lower rate (models with a transform).
        size: by default the model's own; "original" leaves an image as it is, with its right and lower edges repeated
        up to whole patches (models with a transform).
        Raises ImageError for images that cannot be taken, ConfigError for a rate that the model does not have.
        """
        self.require_tokens()
        images = as_batch(images, size or self.config.image_size, patch_of(self.config))
        parts = [
            quantized.tokens[:count].cpu()
            for quantized, count in self._quantized(images)
            if quantized.tokens is not None
        ]
        whole = Tokens(torch.cat(parts), self.config.bits_per_group, (images.shape[2], images.shape[3]))
        return whole if bits_per_token is None else whole.truncate(bits_per_token)

    @own_precision
    @torch.no_grad()
    def codes(self, images: Images) -> Tensor:
        """Return the codes B N K of images on the model's device, also of a continuous latent.

        images: as in :meth:`tokenize`.
        """
        if self.quantizer.has_tokens:
            return self.code_of(self.tokenize(images).indices)
        images = as_images(images, self.config.image_size)
        return torch.cat([quantized.code[:count].clone() for quantized, count in self._quantized(images)])

    def _quantized(self, images: Tensor) -> Iterator[tuple[Quantized, int]]:
        """Yield the quantized latents of images B 3 H W in chunks, each with how many of its rows count."""
        forward = self.inference.encoder_forward(self.encoder.forward_blocks)

        def encode(part: Tensor) -> Tensor:
            part = part.to(self.device)
            part = part if part.is_floating_point() else to_float(part)
            return forward(part, self.encoder.table(part[:0]))

        for rows, count in self.inference.chunks(len(images), self.chunk_size((images.shape[2], images.shape[3]))):
            part = images[rows]
            transform = self.config.transform
            latents = encode(part) if transform is None else encode_tiled(encode, part, transform.patch_size)
            yield self.quantize(latents), count

    @property
    def has_tokens(self) -> bool:
        """Return whether its codes are integers."""
        return self.quantizer.has_tokens

    def require_tokens(self) -> None:
        """Raise ConfigError for a model whose codes are not integers; commands that need tokens ask before any work."""
        if not self.quantizer.has_tokens:
            raise ConfigError(NO_TOKENS)

    @own_precision
    @torch.no_grad()
    def detokenize(
        self, tokens: Tokens, *, seed: int | Sequence[int] = 0, uint8: bool = False, **sampler: Any
    ) -> Tensor:
        """Return the images B 3 H W in [-1, 1] that tokens decode to, on the model's device.

        seed: one integer gives every image the same starting noise, a list one each; the batch that an image stands in
        changes nothing.
        uint8: return them in 8 bits, 0 to 255, which of a large image takes a fourth of the memory.
        sampler: ``num_steps``, ``rho``, ``guidance_scale``, ``guidance_interval``, ``solver``; what is not given, or
        None, is as stored with the weights (``config.sampler``).
        """
        self.require_tokens()
        check_tokens(tokens, self.config)
        code = self.code_of(tokens.indices)
        return self.decode_codes(code, tokens.image_size, seed=seed, uint8=uint8, **sampler)

    @own_precision
    @torch.no_grad()
    def decode_codes(
        self,
        code: Tensor,
        size: tuple[int, int],
        *,
        seed: int | Sequence[int] = 0,
        uint8: bool = False,
        **sampler: Any,
    ) -> Tensor:
        """Return the images B 3 H W in [-1, 1] of codes B N K as :meth:`codes` gives them, on the model's device.

        size: (H, W). The rest is as of :meth:`detokenize`.
        """
        noise = seeded_noise(seed, len(code), (3, *size))
        return self.decode_noise(code, noise, sampler_with(self.config.sampler, sampler), uint8)

    @own_precision
    @torch.no_grad()
    def decode_noise(self, code: Tensor, noise: Tensor, sampler: SamplerConfig, uint8: bool = False) -> Tensor:
        """Return the images B 3 H W in [-1, 1] of codes B N K and of the noise B 3 H W that each begins with.

        They are decoded as many at a time as ``prepare`` said. uint8: as of :meth:`detokenize`.
        """
        finish = to_uint8 if uint8 else lambda image: image.clamp_(-1, 1)
        parts = []
        for rows, count in self.inference.chunks(len(code), self.chunk_size((noise.shape[2], noise.shape[3]))):
            image = self.decode(code[rows].to(self.device), noise[rows].to(self.device), sampler, finish)
            parts.append(image[:count])
        return parts[0] if len(parts) == 1 else torch.cat(parts)  # a large image is not copied

    def code_of(self, indices: Tensor) -> Tensor:
        """Return the code B N K of integers B N G on the model's device, with zeros for groups that were cut off."""
        return all_channels(self.quantizer.decode(indices.to(self.device)), self.config)

    def decode(self, code: Tensor, noise: Tensor, sampler: SamplerConfig, finish: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what ``finish`` makes of what :meth:`sample` gives, by tiles where attention cannot take an image."""
        if self.config.transform is None:
            return finish(self.sample(code, noise, sampler))
        patch = self.config.transform.patch_size
        return decode_tiled(lambda c, z: self.sample(c, z, sampler), code, noise, patch, finish)

    def chunk_size(self, size: tuple[int, int]) -> int:
        """Return how many images of this height and width the verbs give the networks at a time."""
        return self.inference.images_at_once(self.config, size, self.device)

    def reconstruct(self, images: Images, **settings: object) -> Tensor:
        """Return ``detokenize(tokenize(images))``; a continuous latent goes without tokens.

        images: as in :meth:`tokenize`. settings: as in :meth:`detokenize`.
        """
        images = as_images(images, self.config.image_size)
        return self.decode_codes(self.codes(images), (images.shape[2], images.shape[3]), **settings)  # type: ignore[arg-type]

    def fingerprint(self) -> int:
        """Return 32 bits of a hash that say which encoder and quantizer made a token file: of weights and settings.

        Weights count in half precision, so that a checkpoint and its packaged half-precision copy agree. The
        decoder does not count: a post-trained or distilled one reads old files. Weights that were made bfloat16 count
        as they were before.
        """
        found = fingerprint_of(self.config, self.encoder, self.quantizer)
        return self.before_cast[1] if self.before_cast and self.before_cast[0] == found else found
