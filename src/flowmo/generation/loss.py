"""Stage 2: cross-entropy of masked tokens (Section 3.5, MaskGIT; F1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .model import NO_CLASS
from .schedule import Schedule, random_masks

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Any generator of tokens: (tokens B L, labels (B,), mask B L) -> logits B L V, as ``Generator.forward``.

Tokens have any value where masked; the label ``NO_CLASS`` asks without a class.
"""


class MaskedDraws(NamedTuple):
    """The randomness of one training step."""

    mask: Tensor  # bool B L, True where a token is masked
    labels: Tensor  # int64 (B,), ``NO_CLASS`` where dropped


class MaskedLoss(NamedTuple):
    """The scalars of one training step."""

    total: Tensor  # the loss that is minimised, with label smoothing
    cross_entropy: Tensor  # nats a masked token, without label smoothing
    accuracy: Tensor  # share of the masked tokens whose likeliest value is theirs
    masked: Tensor  # share of all tokens that is masked


def draw_masks(
    tokens: Tensor, labels: Tensor, schedule: Schedule, label_dropout: float, generator: torch.Generator
) -> MaskedDraws:
    """Return masks, and labels of which some are dropped, for tokens B L and labels (B,); ``generator`` draws both."""
    mask = random_masks(tokens.shape[0], tokens.shape[1], schedule, generator).to(tokens.device)
    dropped = torch.rand(len(labels), generator=generator, device=generator.device, dtype=torch.float32) < label_dropout
    return MaskedDraws(mask, torch.where(dropped.to(labels.device), NO_CLASS, labels))


def masked_loss(predict: Predict, tokens: Tensor, draws: MaskedDraws, label_smoothing: float = 0.0) -> MaskedLoss:
    """Return the cross-entropy of the masked tokens of a batch, a mean over them all; tokens: int64 B L."""
    logits = predict(tokens, draws.labels, draws.mask)[draws.mask].float()  # masked V
    target = tokens[draws.mask]
    cross_entropy = F.cross_entropy(logits, target)
    total = F.cross_entropy(logits, target, label_smoothing=label_smoothing) if label_smoothing else cross_entropy
    accuracy = (logits.detach().argmax(-1) == target).float().mean()
    return MaskedLoss(total, cross_entropy, accuracy, draws.mask.float().mean())
