"""Regression of the image from its code, the "encoder trained with MSE" of Section 4.2 and Table 4 (F5).

The paper gives no details. Here the decoder is asked once, at t = 1, with x_t = 0 in place of noise, and its image
estimate is compared with the image: a plain autoencoder out of the same network, whose image tokens start alike and
differ by position only, as the encoder's latent tokens do. Stage 1A then trains the decoder on the frozen code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..flow import image_estimate
from ..quantize import Average
from ..tokenizer import FlowMo
from .mode_matching import LossWeights, PerceptualDistance, bit_share, encode, perceptual_loss


class AutoencodeLoss(NamedTuple):
    """Scalars of the regression; ``total`` is what is minimised. reconstruction: mean squared error. bit_share: as in
    Stage 1A."""

    total: Tensor
    reconstruction: Tensor
    perceptual: Tensor
    sample_entropy: Tensor
    codebook_entropy: Tensor
    commitment: Tensor
    bit_share: Tensor | None = None


def autoencode_loss(
    model: FlowMo,
    image: Tensor,
    weights: LossWeights,
    perceptual: PerceptualDistance | None = None,
    perceptual_share: float = 1.0,
    average: Average | None = None,
) -> AutoencodeLoss:
    """Eq. 9 with the squared error of one pass in place of the flow loss; image B 3 H W in [-1, 1].

    The same weights, and the other arguments as in ``mode_matching_loss``. No code is dropped.
    """
    quantized = encode(model, image, average)
    estimate = regress(model, quantized.code, image.shape)
    reconstruction = F.mse_loss(estimate, image)
    distance = reconstruction.new_zeros(())
    if perceptual is not None and weights.perceptual:
        distance = perceptual_loss(perceptual, estimate, image, perceptual_share)
    total = reconstruction + weights.perceptual * distance + weights.quantizer_loss(quantized.losses)
    return AutoencodeLoss(total, reconstruction, distance, *quantized.losses, bit_share(model, quantized))


def regress(model: FlowMo, code: Tensor, shape: torch.Size) -> Tensor:
    """The image that a model of this stage makes of a code B N K in one pass: float32, of ``shape`` B 3 H W."""
    x_t = torch.zeros(shape, device=code.device)
    t = torch.ones(shape[0], device=code.device)
    return image_estimate(x_t, model.velocity(x_t, code, t).float(), t)


def reconstruct(model: FlowMo, image: Tensor) -> Tensor:
    """image B 3 H W in [-1, 1], coded and painted by :func:`regress`, clipped."""
    return regress(model, model.quantize(model.encode(image)).code, image.shape).clamp(-1, 1)
