"""A FlowMo tokenizer with the interface of diffusers' autoencoders: ``encode(x).latent_dist``, ``decode(z).sample``.

The latents are the code, B x tokens x bits (N, K), +1 or -1 with lookup-free quantization: a one-dimensional sequence,
not a grid. What diffusers calls a sample is here an image that the decoder draws from noise, so that ``decode`` takes a
seed or a generator. Needs ``pip install 'flowmo[diffusers]'``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor

from ..config import FlowMoConfig, from_dict, to_dict
from ..errors import ConfigError
from ..flow import seeded_noise
from ..quantize.tokens import Tokens
from ..tokenizer import FlowMo
from ..verbs import sampler_with
from ..weights import load


class CodeDistribution:
    """A distribution of one value, since the code has no spread. latents: B N K."""

    def __init__(self, latents: Tensor) -> None:
        self.mean = latents

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the code B N K; nothing is drawn."""
        return self.mean

    def mode(self) -> Tensor:
        """Return the code B N K."""
        return self.mean

    def kl(self) -> Tensor:
        """Return the Kullback-Leibler divergence: zeros (B,), one an image."""
        return self.mean.new_zeros(len(self.mean))


@dataclass
class EncoderOutput(BaseOutput):
    """The code of a batch of images, as autoencoders of diffusers return it."""

    latent_dist: CodeDistribution  # as of AutoencoderKL
    latents: Tensor  # the code B N K, as of VQModel
    tokens: Tokens | None = None  # the same as integers, or None where the code is not of integers


@dataclass
class DecoderOutput(BaseOutput):
    """The images of a batch of latents."""

    sample: Tensor  # images B 3 H W in [-1, 1]


class AutoencoderFlowMo(ModelMixin, ConfigMixin):
    """FlowMo as a model of diffusers; ``save_pretrained`` and ``from_pretrained`` are diffusers' own.

    flowmo: a FlowMoConfig as plain data (:func:`flowmo.config.to_dict`).
    ``AutoencoderFlowMo.from_flowmo("flowmo-lo")`` makes one of any model that ``flowmo.load`` takes.
    ``tokenizer`` is the FlowMo model inside.
    """

    config_name = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(self, flowmo: dict[str, Any], scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.tokenizer = FlowMo(from_dict(FlowMoConfig, dict(flowmo)))

    @classmethod
    def from_flowmo(cls, model: FlowMo | str | Path = "") -> AutoencoderFlowMo:
        """Return the adapter of a model, or of what ``flowmo.load`` takes; by default the packaged one."""
        if not isinstance(model, FlowMo):
            model = load(model) if str(model) else load()
        with torch.device("meta"):
            adapter = cls(to_dict(model.config))
        adapter.tokenizer = model
        return adapter.eval()

    @classmethod
    def from_pretrained(cls, *arguments: Any, **settings: Any) -> AutoencoderFlowMo:
        """Return the adapter that diffusers' own method reads, with every tensor on a device.

        Constants that its files do not hold are made anew.
        """
        adapter = super().from_pretrained(*arguments, **settings)
        encoder, config = adapter.tokenizer.encoder, adapter.tokenizer.config
        if config.initial_latent == "zeros" and config.transform is None:  # a constant, which is not stored
            encoder.initial_latent = torch.zeros(
                config.num_tokens, config.latent_dim, device=adapter.device, dtype=encoder.readout.weight.dtype
            )
        return adapter

    def encode(self, x: Tensor, return_dict: bool = True) -> EncoderOutput | tuple[CodeDistribution]:
        """Return the code of images x, B 3 H W in [-1, 1]."""
        quantized = self.tokenizer.quantize(self.tokenizer.encode(x))
        distribution = CodeDistribution(quantized.code)
        if not return_dict:
            return (distribution,)
        size, tokens = (x.shape[2], x.shape[3]), quantized.tokens
        whole = None if tokens is None else Tokens(tokens, self.tokenizer.config.bits_per_group, size)
        return EncoderOutput(distribution, quantized.code, whole)

    def decode(
        self,
        z: Tensor,
        return_dict: bool = True,
        generator: torch.Generator | None = None,
        seed: int | Sequence[int] = 0,
        size: tuple[int, int] | None = None,
        **sampler: Any,
    ) -> DecoderOutput | tuple[Tensor]:
        """Return images B 3 H W in [-1, 1] of latents z, B N K.

        Where the code is of signs, other latents, such as another model's, are brought to the nearest code; of a model
        of any rate, 0 is a bit that was not kept.
        generator: of the starting noise, instead of seed, as in ``FlowMo.detokenize``.
        size: (height, width) of the images, by default the model's; of a model of any size, by default a square of as
        many tokens.
        sampler: num_steps, guidance_scale and the like.
        Raises ConfigError for latents of another shape, or settings that the sampler does not have.
        """
        config = self.tokenizer.config
        size = size or _square(config, z)
        if z.ndim != 3 or tuple(z.shape[1:]) != (config.tokens_of(size), config.latent_dim):
            raise ConfigError(
                f"latents must be B {config.tokens_of(size)} {config.latent_dim} (tokens, bits) for images of "
                f"{size[0]} x {size[1]} pixels, got {tuple(z.shape)}; size=(height, width) names others"
            )
        if config.quantizer.kind == "lfq":
            signs = torch.where(z > 0, 1.0, -1.0).to(z.dtype)
            z = signs if config.transform is None else torch.where(z == 0, 0.0, signs)
        shape = (3, *size)
        if generator is None:
            noise = seeded_noise(seed, len(z), shape)
        else:
            noise = torch.randn(len(z), *shape, generator=generator, device=generator.device)
        chosen = sampler_with(config.sampler, sampler)
        image = self.tokenizer.sample(z, noise.to(z.device), chosen).clamp(-1, 1)
        return DecoderOutput(image) if return_dict else (image,)

    def forward(self, sample: Tensor, return_dict: bool = True, **settings: Any) -> DecoderOutput | tuple[Tensor]:
        """Return the reconstructions of images B 3 H W in [-1, 1]; settings: of :meth:`decode`."""
        settings = {"size": (sample.shape[2], sample.shape[3])} | settings
        return self.decode(self.encode(sample).latents, return_dict, **settings)  # type: ignore[union-attr]


def _square(config: FlowMoConfig, z: Tensor) -> tuple[int, int]:
    """Return the size of square images of as many tokens as latents have, where the model codes any size.

    It is the model's own size where it codes no other.
    """
    if config.transform is not None and z.ndim == 3:
        side = math.isqrt(z.shape[1])
        if side and side * side == z.shape[1]:
            return side * config.transform.patch_size, side * config.transform.patch_size
    return config.image_size, config.image_size
