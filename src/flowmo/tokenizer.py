"""FlowMo, the diffusion autoencoder: parts for training and the user's verbs (Section 3, Figure 3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from .arch import Decoder, Encoder, masked_code, null_code
from .config import FlowMoConfig
from .errors import ConfigError
from .flow import Guidance, euler, seeded_noise, shifted_grid, velocity_from_estimate
from .image_utils import Images, as_images
from .pretrained import Pretrained
from .quantize import Average, Quantized, dequantize, quantize
from .quantize.tokens import Tokens

SMALLEST_TRAINING_T = 0.05  # keeps the loss of a clean prediction finite at low noise
TOKENS_AT_ONCE = {"cpu": 2**12, "cuda": 2**17}
"""Latent and image tokens that the verbs give a network at once: as many as fit a cache, or fill a GPU and fit it."""


@dataclass(frozen=True)
class Prepared:
    """How the verbs run. chunk_size: images at a time, None for as many as TOKENS_AT_ONCE. read, paint: the passes of
    encoder and decoder compiled for batches of that size and no other, None for those of the modules."""

    chunk_size: int | None = None
    read: Callable[..., Tensor] | None = None
    paint: Callable[..., Tensor] | None = None

    def __reduce__(self) -> tuple[type[Prepared], tuple[int | None]]:
        """Copies, and models out of a pickle, are not compiled: compiled passes belong to one model's weights."""
        return Prepared, (self.chunk_size,)


class FlowMo(Pretrained, nn.Module):
    """Image -> latent -> code (+ tokens) -> image.

    The parts (:meth:`encode`, :meth:`quantize`, :meth:`velocity`, :meth:`sample`) keep gradients; the verbs
    (:meth:`tokenize`, :meth:`detokenize`, :meth:`reconstruct`) do not.
    """

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.prepared = Prepared()

    @property
    def device(self) -> torch.device:
        return self.encoder.readout.weight.device

    def prepare(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        compile: bool | str = False,
        chunk_size: int | None = None,
    ) -> Self:
        """Make this model ready to code and paint, and return it; in place, as ``to`` does.

        dtype: of the weights; the sampler's state and steps stay float32. compile: the passes of both networks by
        torch.compile, with CUDA graphs on a GPU; a name is one of its backends. A compiled model takes batches of
        ``chunk_size`` images alone: the verbs pad the last one, so choose a size that you fill. It compiles at the
        first call for each size of pictures; copies and saved models are not compiled. chunk_size: images at a time,
        by default as many as suit the device.
        Raises ConfigError for a device that is not there, or for settings that cannot be.
        """
        if chunk_size is not None and chunk_size < 1:
            raise ConfigError(f"chunk_size must be at least 1, got {chunk_size}")
        if dtype is not None and not dtype.is_floating_point:
            raise ConfigError(f"dtype must be one of weights, float32, bfloat16 or float16; got {dtype}")
        try:
            self.to(device, dtype)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f'the model cannot be put on {device} ({reason[:90]}); try device="cpu"') from None
        self.eval()
        self.prepared = Prepared(chunk_size)
        if compile:
            how: dict[str, Any] = {"backend": compile} if isinstance(compile, str) else {}
            if not how and self.device.type == "cuda":
                how = {"mode": "reduce-overhead"}
            try:
                passes = [
                    torch.compile(f, fullgraph=True, dynamic=False, **how)
                    for f in (self.encoder.read, self.decoder.paint)
                ]
            except Exception as error:  # the compiler has errors of its own, for an unknown backend among others
                raise ConfigError(f"torch.compile does not take {compile!r}: {str(error)[:200]}") from None
            self.prepared = Prepared(chunk_size, *passes)
        return self

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
        steps = [(now, after, guidance.acts(now)) for now, after in pairwise(grid.tolist())]
        one = both = decoder.code_in(masked_code(code).to(dtype))
        if any(guided for *_, guided in steps):
            null = decoder.code_in(null_code(1, self.config, code).to(dtype))
            both = torch.cat([one, null.expand_as(one)])
        compiled = None if torch.is_grad_enabled() else self.prepared.paint

        def velocity(x: Tensor, k: int, guided: bool) -> Tensor:
            if guided:
                x = x.repeat(2, 1, 1, 1)
            if compiled and x.is_cuda:
                torch.compiler.cudagraph_mark_step_begin()  # nothing refers any more to what the pass before put out
            v = (compiled or decoder.paint)(x, both if guided else one, levels[k], table).to(x.dtype)
            if self.config.prediction == "clean":
                v = velocity_from_estimate(x, v, t[k])
            return guidance.combine(*v.chunk(2)) if guided else v

        x = noise
        for k, (now, after, guided) in enumerate(steps):
            x = euler(x, velocity(x, k, guided), after - now)
        return x

    @torch.no_grad()
    def tokenize(self, images: Images) -> Tokens:
        """Images in any form -> Tokens, on the CPU.

        images: a float tensor B 3 H W in [-1, 1], whose sides are multiples of the patch sizes; or a path, a Pillow
        image, a NumPy array, a uint8 tensor, or a list of these of any sizes, which are brought to the model's size
        (:func:`flowmo.image_utils.as_images`). Raises ImageError.
        """
        images = as_images(images, self.config.image_size)
        if self.config.quantizer.kind == "continuous":
            raise ConfigError('a model with quantizer "continuous" has no tokens; use encode() and quantize().code')
        read, size, parts = self.prepared.read or self.encoder.read, (images.shape[2], images.shape[3]), []
        table = self.encoder.table(images[:0].to(self.device))
        for rows, count in self._chunks(len(images), size):
            if self.prepared.read and table.is_cuda:
                torch.compiler.cudagraph_mark_step_begin()
            tokens = self.quantize(read(images[rows].to(self.device), table)).tokens
            assert tokens is not None
            parts.append(tokens[:count].cpu())
        return Tokens(torch.cat(parts), self.config.bits_per_group, size)

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
        noise = seeded_noise(seed, len(tokens), (3, *tokens.image_size))
        parts = []
        for rows, count in self._chunks(len(tokens), tokens.image_size):
            code = dequantize(tokens.indices[rows].to(self.device), c)
            start = noise[rows].to(self.device)
            image = self.sample(code, start, num_steps, rho, guidance_scale, guidance_interval)
            parts.append(image[:count].clamp(-1, 1))
        return torch.cat(parts)

    def chunk_size(self, size: tuple[int, int]) -> int:
        """Images of this height and width that the verbs give the networks at a time."""
        if self.prepared.chunk_size is not None:
            return self.prepared.chunk_size
        c = self.config
        patches = size[0] * size[1] // min(c.encoder.patch_size, c.decoder.patch_size) ** 2
        budget = TOKENS_AT_ONCE.get(self.device.type, TOKENS_AT_ONCE["cuda"])
        return max(1, budget // (c.num_tokens + patches))

    def _chunks(self, count: int, size: tuple[int, int]) -> Iterator[tuple[slice | list[int], int]]:
        """Which images of a batch come together, and how many of them are wanted: a compiled pass takes whole chunks
        alone, so the last image stands for those that lack. One empty chunk of an empty batch."""
        chunk = self.chunk_size(size)
        for first in range(0, max(count, 1), chunk):
            here = min(chunk, count - first)
            if self.prepared.paint is None or here == 0:
                yield slice(first, first + here), here
            else:
                yield [min(first + i, count - 1) for i in range(chunk)], here

    def reconstruct(self, images: Images, **settings: object) -> Tensor:
        """``detokenize(tokenize(images))``; images as in :meth:`tokenize`, settings as in :meth:`detokenize`."""
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
