"""The noise level and how it modulates a block: time embedding and AdaLN (Section 3.1; B6, B8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_CHANNELS = 256


class Modulation(NamedTuple):
    """The modulation of one residual branch: each tensor is B 1 width, or width where a batch is at one noise level."""

    shift: Tensor  # added after the factor
    factor: Tensor  # 1 + scale
    gate: Tensor | None = None  # of the branch's output; None where there is none

    def at(self, k: int) -> Modulation:
        """Return the modulation of image ``k`` alone, for a batch at its noise level."""
        return Modulation(self.shift[k, 0], self.factor[k, 0], None if self.gate is None else self.gate[k, 0])


class TimeEmbedding(nn.Module):
    """The map from noise levels t (B,) in [0, 1] to conditionings B width (B8).

    It takes sinusoids of 1000 t, then a two-layer SiLU MLP.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(TIME_CHANNELS, width)
        self.linear_out = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        half = TIME_CHANNELS // 2
        index = torch.arange(half, dtype=torch.float32, device=t.device)
        angle = 1000.0 * t.float()[:, None] * torch.exp(-math.log(10_000.0) / half * index)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.linear_in.weight.dtype)
        return self.linear_out(F.silu(self.linear_in(waves)))


class AdaLN(nn.Module):
    """The map from a conditioning B width to the modulations of one stream, one for each of its branches.

    Gates start at zero, shifts and scales at the default initialisation (B6). With ``gated=False`` there is one
    branch of shift and scale only, for a readout or a stream that is not updated.
    """

    def __init__(self, width: int, gated: bool = True) -> None:
        super().__init__()
        self.chunks = 6 if gated else 2
        self.linear = nn.Linear(width, self.chunks * width)
        if gated:
            with torch.no_grad():
                for gate in (2, 5):
                    self.linear.weight[gate * width : (gate + 1) * width].zero_()
                    self.linear.bias[gate * width : (gate + 1) * width].zero_()

    def forward(self, conditioning: Tensor) -> list[Modulation]:
        return as_modulations(self.linear(F.silu(conditioning)).unsqueeze(1).chunk(self.chunks, dim=-1))


class AdaLNTable(nn.Module):
    """Shared modulation: what is computed once for all blocks, plus this block's learned table.

    It is the option ``modulation="shared"`` for small models, since AdaLN is a third of a block's weights for a
    function of one scalar. ``shared`` is B chunks width, of which the first ``chunks`` are used.
    """

    def __init__(self, width: int, gated: bool = True) -> None:
        super().__init__()
        self.chunks = 6 if gated else 2
        self.table = nn.Parameter(torch.zeros(self.chunks, width))

    def forward(self, shared: Tensor) -> list[Modulation]:
        return as_modulations((shared[:, : self.chunks] + self.table).unsqueeze(2).unbind(1))


def as_modulations(chunks: tuple[Tensor, ...]) -> list[Modulation]:
    """Return the modulation made of (shift, scale), or the two made of (shift, scale, gate) of two branches."""
    if len(chunks) == 2:
        return [Modulation(chunks[0], 1 + chunks[1])]
    return [Modulation(shift, 1 + scale, gate) for shift, scale, gate in (chunks[:3], chunks[3:])]


def modulated_norm(x: Tensor, modulation: Modulation | None) -> Tensor:
    """Return x after LayerNorm without weights, shifted and scaled; the encoder has no modulation (B5)."""
    if modulation is not None and modulation.shift.ndim == 1:
        return F.layer_norm(x, x.shape[-1:], modulation.factor, modulation.shift, eps=1e-6)
    x = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return x if modulation is None else torch.addcmul(modulation.shift, x, modulation.factor)


def add_gated(x: Tensor, branch: Tensor, modulation: Modulation | None) -> Tensor:
    """Return x plus a residual branch, through its gate if it has one."""
    if modulation is None or modulation.gate is None:
        return x + branch
    return torch.addcmul(x, branch, modulation.gate)
