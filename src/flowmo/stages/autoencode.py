"""Regression of the image from its code, the "encoder trained with MSE" of Section 4.2 and Table 4 (F5).

The paper gives no details. Here the decoder is asked once, at t = 1, with x_t = 0 in place of noise, and its image
estimate is compared with the image: a plain autoencoder out of the same network, whose image tokens start alike and
differ by position only, as the encoder's latent tokens do. Stage 1A then trains the decoder on the frozen code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow import image_estimate
from ..quantize import Average
from ..tokenizer import FlowMo
from .base import ImageBatch, LossParts, PerceptualDistance, Stage
from .mode_matching import WHOLE, EndToEndConfig, LossWeights, Window, bit_share, draw_window, encode, perceptual_loss


@dataclass(frozen=True)
class AutoencodeConfig(EndToEndConfig):
    """What the regression can be told: what Stage 1A can without its noise."""

    stage: Literal["autoencode"] = "autoencode"  # its name


class AutoencodeLoss(NamedTuple):
    """The terms of the regression's loss, scalars."""

    total: Tensor  # what is minimised
    reconstruction: Tensor  # mean squared error
    perceptual: Tensor  # mean d_perc
    sample_entropy: Tensor  # mean entropy of a sample's code
    codebook_entropy: Tensor  # entropy of the mean code
    commitment: Tensor  # L_commit
    bit_share: Tensor | None = None  # see ``mode_matching.bit_share``


def autoencode_loss(
    model: FlowMo,
    image: Tensor,
    weights: LossWeights,
    perceptual: PerceptualDistance | None = None,
    perceptual_share: float = 1.0,
    average: Average | None = None,
    window: Window = WHOLE,
) -> AutoencodeLoss:
    """Return Eq. 9 with the squared error of one pass in place of the flow loss.

    image: B 3 H W in [-1, 1]. The weights and the other arguments are those of ``mode_matching_loss``. No code is
    dropped.
    """
    quantized = encode(model, image, average)
    estimate = regress(model, quantized.code, image.shape)
    reconstruction = F.mse_loss(estimate, image)
    distance = reconstruction.new_zeros(())
    if perceptual is not None and weights.perceptual:
        distance = perceptual_loss(perceptual, estimate, image, perceptual_share, window)
    total = weights.flow * reconstruction + weights.perceptual * distance + weights.quantizer_loss(quantized.losses)
    return AutoencodeLoss(total, reconstruction, distance, *quantized.losses, bit_share(model, quantized))


def regress(model: FlowMo, code: Tensor, shape: torch.Size) -> Tensor:
    """Return the image that a model of this stage makes of a code B N K in one pass: float32, ``shape`` B 3 H W."""
    x_t = torch.zeros(shape, device=code.device)
    t = torch.ones(shape[0], device=code.device)
    return image_estimate(x_t, model.velocity(x_t, code, t).float(), t)


def reconstruct(model: FlowMo, image: Tensor) -> Tensor:
    """Return images B 3 H W in [-1, 1] encoded and decoded by :func:`regress`, clipped."""
    return regress(model, model.quantize(model.encode(image)).code, image.shape).clamp(-1, 1)


class Autoencode(Stage):
    """The regression on one micro-batch. Only the part of the images that d_perc sees is random."""

    model: FlowMo

    def __init__(self, model: FlowMo, config: AutoencodeConfig, parts: LossParts | None = None) -> None:
        super().__init__()
        self.model, self.config, self.parts = model, config, parts or LossParts()

    def forward(self, batch: ImageBatch, generator: torch.Generator, images_seen: int) -> AutoencodeLoss:
        """Return the loss of ``batch``."""
        config = self.config
        return autoencode_loss(
            self.model,
            batch.images,
            config.losses,
            perceptual=self.parts.perceptual,
            perceptual_share=config.perceptual_share,
            average=self.parts.average if config.entropy_over == "processes" else None,
            window=draw_window(batch.images, config.perceptual_crop, generator, config.perceptual_scales),
        )
