"""A quick look at a model in training: samples from pure noise, since the training loss says nothing about the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..data import to_uint8
from ..files import replacing
from ..tokenizer import FlowMo
from .pixels import psnr, thumbnail


def make_check(
    images: Tensor, folder: Path, perceptual: Callable[[Tensor, Tensor], Tensor] | None = None, pictures: int = 8
) -> Callable[[FlowMo, int], dict[str, float]]:
    """A function of (model, images seen) for the training loop.

    It reconstructs ``images`` (B 3 H W in [-1, 1]) with the model's own sampler and in one step from t = 1, writes a
    contact sheet (rows: original, thumbnail of the same bits, one step, sampler) to ``folder``, and returns PSNR in
    dB, LPIPS where a network is given, and PSNR with the codes shuffled between images.
    """

    @torch.no_grad()
    def check(model: FlowMo, images_seen: int) -> dict[str, float]:
        x = images.to(model.device)
        tokens = model.tokenize(x)
        seeds = list(range(len(x)))
        sampled = model.detokenize(tokens, seed=seeds)
        one_step = model.detokenize(tokens, num_steps=1, guidance_scale=1.0, seed=seeds)
        shuffled = sampled.roll(1, 0)
        config = model.config
        small = thumbnail(x, config.num_tokens * config.bits_per_token)
        sheet = torch.cat([torch.cat(list(row[:pictures]), 2) for row in (x, small, one_step, sampled)], 1)
        with replacing(folder / f"{images_seen:010d}.png") as part:
            Image.fromarray(to_uint8(sheet[None])[0].permute(1, 2, 0).cpu().numpy()).save(part, format="PNG")
        numbers = {
            "psnr": psnr(sampled, x),
            "psnr_one_step": psnr(one_step, x),
            "psnr_shuffled": psnr(shuffled, x),
            "psnr_thumbnail": psnr(small, x),
        }
        if perceptual is not None:
            numbers["lpips"] = perceptual(sampled, x)
            numbers["lpips_one_step"] = perceptual(one_step, x)
            numbers["lpips_thumbnail"] = perceptual(small, x)
        return {name: float(value.mean()) for name, value in numbers.items()}

    return check
