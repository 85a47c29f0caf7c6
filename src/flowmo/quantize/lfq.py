"""Lookup-free quantization: the code is the latent's signs (Section 3.2, Eq. 2, 7, 8; A6-A10)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import FlowMoConfig
from .base import Average, Quantized, Quantizer, QuantizerLosses, straight_through

EPSILON = 1e-5  # inside the logarithm of the codebook entropy, as published (A6)


class LFQ(Quantizer):
    """Lookup-free quantization of a model's configuration; it has no weights."""

    has_bits = True

    def __init__(self, config: FlowMoConfig) -> None:
        super().__init__()
        self.bits_per_group, self.config = config.bits_per_group, config.quantizer
        self.latent_dim, self.levels = config.bits_per_token, (2,) * config.bits_per_group

    def forward(self, latent: Tensor, average: Average | None = None) -> Quantized:
        q = self.config
        rotate = q.straight_through == "rotation"
        return quantize_lfq(latent, self.bits_per_group, q.temperature, q.tanh_bound, average, rotate)

    def decode(self, tokens: Tensor) -> Tensor:
        return code_from_tokens(tokens, self.bits_per_group)


def quantize_lfq(
    latent: Tensor,
    bits_per_group: int,
    temperature: float = 0.1,
    tanh_bound: bool = False,
    average: Average | None = None,
    rotate: bool = False,
) -> Quantized:
    """Return code, tokens and losses of a latent B N K: its signs with the straight-through gradient (Eq. 2).

    A sign is +1 where the latent is above 0, else -1 (A9).
    tanh_bound: squash the latent to (-1, 1) first, the variant that Appendix A.1 found worse.
    average: see :func:`entropies`. rotate: see :func:`straight_through`.
    """
    latent = latent.float()
    if tanh_bound:
        latent = latent.tanh()
    signs = torch.where(latent > 0, 1.0, -1.0)
    groups = bits_by_group(latent, bits_per_group)  # (B N G) bits
    sample_entropy, codebook_entropy = entropies(groups, temperature, average)
    losses = QuantizerLosses(sample_entropy, codebook_entropy, F.mse_loss(latent, signs))
    return Quantized(straight_through(latent, signs, rotate), tokens_from_code(signs, bits_per_group), losses)


def entropies(groups: Tensor, temperature: float, average: Average | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean entropy of a sample's code, and the entropy of the mean code, in nats (Eq. 7).

    groups: latents S bits, one row a sample.
    A sample's distribution is a softmax of 2 x.c / temperature over all 2^bits codes c of signs. It factorises into
    independent bits, p_i = sigmoid(4 x_i / temperature), so its entropy is a sum of binary entropies, and the
    mean over samples is one matrix product of two half-group tables: exact, and S x 2^bits never exists.

    average: makes the mean code that of the samples of all processes, equally many in each (A7). The gradient is that
    of the own samples, as large as if they were all: averaged over processes it is the exact one.
    """
    logits = 4.0 / temperature * groups
    positive, negative = F.logsigmoid(logits), F.logsigmoid(-logits)
    sample_entropy = -(positive.exp() * positive + negative.exp() * negative).sum(dim=-1).mean()
    half = groups.shape[-1] // 2
    low = _joint(positive[:, :half], negative[:, :half])  # S 2^half
    high = _joint(positive[:, half:], negative[:, half:])
    with torch.autocast(groups.device.type, enabled=False):
        mean = low.T @ high / groups.shape[0]
        if average is not None:
            mean = mean + (average(mean.detach()) - mean.detach())
    return sample_entropy, -(mean * torch.log(mean + EPSILON)).sum()


def _joint(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the probabilities of the 2^b joint values, S 2^b, of bits with these log-probabilities, S b each."""
    joint = positive.new_zeros(positive.shape[0], 1)
    for bit in range(positive.shape[1]):
        joint = torch.cat([joint + negative[:, bit, None], joint + positive[:, bit, None]], dim=1)
    return joint.exp()


def bits_by_group(latent: Tensor, bits_per_group: int) -> Tensor:
    """Return a latent B N K by groups of bits, (B N G) bits, token-major.

    Channel bit * G + group is that bit of that group, so groups interleave (A8).
    """
    return latent.unflatten(-1, (bits_per_group, -1)).transpose(-1, -2).reshape(-1, bits_per_group)


def tokens_from_code(code: Tensor, bits_per_group: int) -> Tensor:
    """Return the integers B N G of signs B N K, bits little-endian (A8)."""
    bits = (code.unflatten(-1, (bits_per_group, -1)) > 0).long()  # B N bits G
    weights = 2 ** torch.arange(bits_per_group, device=code.device)
    return (bits * weights[:, None]).sum(dim=-2)


def code_from_tokens(tokens: Tensor, bits_per_group: int) -> Tensor:
    """Return the signs B N K, float32, of integers B N G; the inverse of :func:`tokens_from_code`."""
    shifts = torch.arange(bits_per_group, device=tokens.device)
    bits = (tokens.unsqueeze(-2) >> shifts[:, None]) & 1  # B N bits G
    return bits.flatten(-2).float() * 2 - 1
