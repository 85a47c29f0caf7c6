"""Stage 2: confidence-based unmasking, many tokens a step, the surest first (Section 3.5, A.3, MaskGIT; F1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from ..inference import own_precision
from .loss import Predict
from .model import NO_CLASS
from .schedule import tokens_left
from .settings import DecodeSettings

OnStep = Callable[[Tensor, Tensor], None]
"""Called after each step with the tokens B L and the mask B L of those that are still unknown."""


@own_precision
@torch.no_grad()
def decode(
    predict: Predict,
    labels: Tensor,
    length: int,
    settings: DecodeSettings,
    seeds: Sequence[int],
    on_step: OnStep | None = None,
    groups: int = 1,
) -> Tensor:
    """Draw a sequence of tokens for each label, and return them as int64 B L on the labels' device.

    labels: int64 (B,), ``NO_CLASS`` for none.
    seeds: one an image; an image depends on its own alone, not on the batch.
    groups: the integers of a token, which follow one another in the sequence, for the order "coarse".
    Each step draws a value for every masked token and keeps the surest, so that ``tokens_left`` stay masked.
    Raises ConfigError where seeds are missing, or for logits that are not finite.
    """
    if len(seeds) != len(labels):
        raise ConfigError(f"{len(seeds)} seeds for {len(labels)} images; give one an image")
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    tokens = torch.zeros(len(labels), length, dtype=torch.int64, device=labels.device)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    plan = tokens_left(length, settings.num_steps, settings.schedule)
    group = torch.arange(length, device=labels.device) % groups
    for k, left in enumerate(plan):
        logits = guided(predict, tokens, labels, mask, settings.guidance_at((k + 1) / len(plan))).float()
        if not logits.isfinite().all():
            raise ConfigError(
                "the generator gives logits that are not finite; its weights or the guidance are unusable"
            )
        draw = _draw_titok if settings.convention == "titok" else _draw
        drawn, confidence = draw(logits, settings, k, len(plan), draws)
        confidence = confidence.masked_fill(~mask, math.inf)
        tokens = torch.where(mask, drawn, tokens)
        surest_last = confidence.argsort(dim=1, stable=True)
        if settings.order == "coarse":
            finest_first = torch.where(mask, -group, 1).gather(1, surest_last).argsort(dim=1, stable=True)
            surest_last = surest_last.gather(1, finest_first)
        mask = torch.zeros_like(mask).scatter(1, surest_last[:, :left], True)
        if on_step is not None:
            on_step(tokens, mask)
    return tokens


def guided(predict: Predict, tokens: Tensor, labels: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Return the guided logits u + scale (c - u), B L V, of the logits c with the class and u without one.

    One function evaluation is made where scale is 1 or no image has a class, else both in one batch.
    """
    if scale == 1 or not (labels != NO_CLASS).any():
        return predict(tokens, labels, mask)
    nothing = torch.full_like(labels, NO_CLASS)
    both = predict(torch.cat([tokens, tokens]), torch.cat([labels, nothing]), torch.cat([mask, mask]))
    with_class, without = both.chunk(2)
    return without + scale * (with_class - without)


def _draw(
    logits: Tensor, settings: DecodeSettings, k: int, steps: int, draws: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Return tokens B L from the softmax at step k, and as confidences B L log-probabilities with Gumbel noise."""
    length, device = logits.shape[1], logits.device
    values, noise = _uniform(draws, length), _gumbel(draws, length)
    drawn, log_p = _sample(logits, settings.temperature_at(k / max(1, steps - 1)), values.to(device))
    return drawn, log_p + (noise * settings.choice_noise * (1 - (k + 1) / steps)).to(device)


def _draw_titok(
    logits: Tensor, settings: DecodeSettings, k: int, steps: int, draws: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Return the likeliest tokens B L of the noisy logits at step k, and their confidences B L.

    A confidence is the token's logit with noise of its own.
    """
    length, values = logits.shape[1:]
    progress = (k + 1) / steps
    logits, scale = logits / settings.temperature_at(progress), settings.choice_noise * (1 - progress)
    noise = _gumbel(draws, length * values).view(-1, length, values)
    drawn = (logits + scale * noise.to(logits.device)).argmax(-1)
    confidence = logits.gather(-1, drawn[..., None])[..., 0]
    return drawn, confidence + scale * _gumbel(draws, length).to(logits.device)


def _gumbel(draws: Sequence[torch.Generator], length: int) -> Tensor:
    """Return numbers B L of the standard Gumbel distribution."""
    return -(-_uniform(draws, length).log()).log()


def _sample(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return tokens B L and their log-probabilities B L at temperature 1.

    A token is the inverse of the distribution function at ``uniform`` B L, or the likeliest at temperature 0.
    """
    if temperature == 0:
        drawn = logits.argmax(-1)
    else:
        reached = (logits / temperature).softmax(-1).cumsum(-1)
        target = uniform[..., None] * reached[..., -1:]
        drawn = torch.searchsorted(reached, target, right=True)[..., 0].clamp(max=logits.shape[-1] - 1)
    return drawn, logits.gather(-1, drawn[..., None])[..., 0] - logits.logsumexp(-1)


def _uniform(draws: Sequence[torch.Generator], length: int) -> Tensor:
    """Return numbers B L in (0, 1), on the CPU, each row from its own generator."""
    return torch.stack([torch.rand(length, generator=generator, dtype=torch.float32) for generator in draws]).clamp(
        min=2.0**-25
    )
