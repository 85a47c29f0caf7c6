"""FlowMo, the diffusion autoencoder: parts for training and the user's verbs (Section 3, Figure 3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .arch import Decoder, Encoder, masked_code, null_code
from .config import FlowMoConfig
from .errors import ConfigError, ImageError
from .flow import Guidance, euler, seeded_noise, shifted_grid, velocity_from_estimate
from .quantize import Average, Quantized, dequantize, quantize
from .quantize.tokens import Tokens

SMALLEST_TRAINING_T = 0.05  # keeps the loss of a clean prediction finite at low noise


class FlowMo(nn.Module):
    """Image -> latent -> code (+ tokens) -> image.

    The parts (:meth:`encode`, :meth:`quantize`, :meth:`velocity`, :meth:`sample`) keep gradients; the verbs
    (:meth:`tokenize`, :meth:`detokenize`, :meth:`reconstruct`) do not.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def device(self) -> torch.device:
        return self.encoder.readout.weight.device

    def encode(self, image: Tensor) -> Tensor:
        """image: B 3 H W in [-1, 1] -> latent c-hat: B N K (Eq. 1). Sides must be multiples of the patch sizes."""
        return self.encoder(image)

    def quantize(self, latent: Tensor, average: Average | None = None) -> Quantized:
        """latent: B N K -> Quantized(code, tokens, losses) (Eq. 2).

        average: over processes, so that the entropy of the mean code (Eq. 7) is that of all their samples (A7).
        """
        return quantize(latent, self.config, average)

    def velocity(
        self, x_t: Tensor, code: Tensor | None, t: Tensor, keep: Tensor | None = None, exact: bool = False
    ) -> Tensor:
        """v = d_theta(x_t, c, t) (Eq. 3): B 3 H W.

        code: B N K, or None for the null condition; the mask channel is added here (B7). t: (B,) in [0, 1].
        keep: (B,) of bool; images where it is False are given the null condition (code dropout).
        exact: as in sampling, a clean prediction is divided by t itself in training mode too: held above a grid's last
        levels, t would leave noise in the image (O3).
        """
        condition = null_code(x_t.shape[0], self.config, x_t) if code is None else masked_code(code, keep)
        output = self.decoder(x_t, condition.to(self.decoder.code_in.weight.dtype), t)
        if self.config.prediction == "velocity":
            return output
        smallest_t = SMALLEST_TRAINING_T if self.training and not exact else 0.0
        return velocity_from_estimate(x_t, output, t, smallest_t)

    def sample(
        self,
        code: Tensor,
        noise: Tensor,
        num_steps: int | None = None,
        rho: float | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
    ) -> Tensor:
        """Integrate from noise B 3 H W to an image, not clipped (Section 3.4). Defaults: ``config.sampler``.

        The same as ``integrate`` with ``Guidance`` over :meth:`velocity`, pass by pass, in fewer operations: what the
        noise levels and the code decide is computed once, before the first step; where guidance acts, both conditions
        share a pass; and the host knows the grid, so that it never waits for the device.
        """
        given: dict[str, Any] = {
            "num_steps": num_steps,
            "rho": rho,
            "guidance_scale": guidance_scale,
            "guidance_interval": guidance_interval,
        }
        sampler = replace(self.config.sampler, **{name: value for name, value in given.items() if value is not None})
        guidance = Guidance(sampler.guidance_scale, sampler.guidance_interval)
        grid = shifted_grid(sampler.num_steps, sampler.rho)
        decoder, dtype = self.decoder, self.decoder.code_in.weight.dtype
        t = grid[:-1].to(noise.device, noise.dtype)
        levels, table = decoder.each_level(t), decoder.table(noise)
        given_code = decoder.code_in(masked_code(code).to(dtype))
        both_codes = torch.cat([given_code, decoder.code_in(null_code(1, self.config, code).to(dtype)).expand_as(given_code)])
        x = noise
        for k, (now, after) in enumerate(pairwise(grid.tolist())):
            guided = guidance.acts(now)
            pair = x.repeat(2, 1, 1, 1) if guided else x
            v = decoder.paint(pair, both_codes if guided else given_code, levels[k], table).to(x.dtype)
            if self.config.prediction == "clean":
                v = velocity_from_estimate(pair, v, t[k])
            x = euler(x, guidance.combine(*v.chunk(2)) if guided else v, after - now)
        return x

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tokens:
        """images: float B 3 H W in [-1, 1] -> Tokens, on the CPU."""
        self._check(images)
        tokens = self.quantize(self.encode(images.to(self.device))).tokens
        if tokens is None:
            raise ConfigError('a model with quantizer "continuous" has no tokens; use encode() and quantize().code')
        return Tokens(tokens.cpu(), self.config.bits_per_group, (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def detokenize(
        self,
        tokens: Tokens,
        *,
        num_steps: int | None = None,
        rho: float | None = None,
        guidance_scale: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Tokens -> images B 3 H W in [-1, 1], on the model's device.

        seed: one integer gives every image the same starting noise, a list one each; the batch an image stands in
        changes nothing. The other arguments default to what is stored with the weights (``config.sampler``).
        """
        c = self.config
        if (tokens.num_tokens, tokens.num_groups, tokens.bits_per_group) != (
            c.num_tokens,
            c.num_groups,
            c.bits_per_group,
        ):
            raise ConfigError(
                f"tokens are {tokens.num_tokens} x {tokens.num_groups} groups of {tokens.bits_per_group} bits, but the "
                f"model reads {c.num_tokens} x {c.num_groups} of {c.bits_per_group}; use the model that they came from"
            )
        code = dequantize(tokens.indices.to(self.device), c)
        noise = seeded_noise(seed, len(tokens), (3, *tokens.image_size)).to(self.device)
        image = self.sample(code, noise, num_steps, rho, guidance_scale, guidance_interval)
        return image.clamp(-1, 1)

    def reconstruct(self, images: Tensor, **settings: object) -> Tensor:
        """``detokenize(tokenize(images))``; settings as in :meth:`detokenize`."""
        return self.detokenize(self.tokenize(images), **settings)  # type: ignore[arg-type]

    def fingerprint(self) -> int:
        """Which encoder and quantizer made a token file: 32 bits of a hash over their weights and settings.

        Weights count in half precision, so that a checkpoint and its packaged half-precision copy agree. The
        decoder does not count: a post-trained or distilled one reads old files.
        """
        c = self.config
        # What the weights do not show, named one by one: a setting that the configuration gains later must not make old
        # files unreadable.
        settings: dict[str, object] = {
            "num_tokens": c.num_tokens,
            "bits_per_token": c.bits_per_token,
            "bits_per_group": c.bits_per_group,
            "quantizer": c.quantizer.kind,
            "levels": c.quantizer.levels if c.quantizer.kind == "fsq" else None,
            "tanh_bound": c.quantizer.tanh_bound,
            "initial_latent": c.initial_latent,
            "latent_positions": c.latent_positions,
        }
        if c.encoder.width_multiplier != 1:
            settings["width_multiplier"] = c.encoder.width_multiplier
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, weight in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
        return int.from_bytes(digest.digest()[:4], "little")

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ImageError(f"images must be B 3 H W, got shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise ImageError(f"images must be floating point in [-1, 1], got {images.dtype}; use image / 127.5 - 1")
        if images.numel() and not (images.min() >= -1.001 and images.max() <= 1.001):  # NaN fails both
            raise ImageError(
                f"images must lie in [-1, 1], got values from {images.min():.3g} to {images.max():.3g}; "
                "use image / 127.5 - 1 for 0..255, or 2 * image - 1 for 0..1"
            )
