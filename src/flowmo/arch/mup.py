"""Maximal update parametrisation: settings found at one width hold at others ("all models in muP", Section 4.1; B1).

The table is the ``mup`` package's, Table 8 of Tensor Programs V, for Adam. m is width / base_width of a transformer;
at m = 1 everything is PyTorch's default, bit for bit.

| weight                                             | initial variance | learning rate | multiplier     |
|----------------------------------------------------|------------------|---------------|----------------|
| hidden, width to width: attention, MLP, AdaLN      | 1 / fan-in       | 1 / m         | 1              |
| input, to width: image_in, code_in, time linear_in | fixed            | 1             | 1              |
| output, from width: readout                        | fixed            | 1             | 1 / m on input |
| biases, norms, modulation tables, initial latent   | fixed            | 1             | 1              |

Attention is scaled by 8 / head_dim in any case (block.py), so a model may be widened by more heads or by wider ones.
All is computed from names and the configuration: nothing is stored on a parameter that a copy could lose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

FINITE_FAN_IN = ("image_in", "code_in", "linear_in")  # channels of a patch, a code or a time embedding to width
FINITE_FAN_OUT = ("readout",)  # width to channels of a patch or a latent


class Readout(nn.Linear):
    """A linear layer from width to a fixed number of channels, whose input, not its bias, is divided by m."""

    def __init__(self, width: int, channels: int, multiplier: float) -> None:
        super().__init__(width, channels)
        self.multiplier = multiplier

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.multiplier == 1 else x / self.multiplier)


def linears(stack: nn.Module) -> Iterator[tuple[str, nn.Linear, bool, bool]]:
    """Yield every linear layer of an encoder or decoder as (name, layer, fan-in grows, fan-out grows) with width."""
    for name, module in stack.named_modules():
        if isinstance(module, nn.Linear):
            leaf = name.rpartition(".")[2]
            yield name, module, leaf not in FINITE_FAN_IN, leaf not in FINITE_FAN_OUT


@torch.no_grad()
def scale_initialization(stack: nn.Module, multiplier: float) -> None:
    """Turn PyTorch's default initialisation, which shrinks with fan-in, into muP's. Called once, on fresh weights.

    Biases and readouts keep their size at base width. Hidden matrices shrink in both.
    """
    if multiplier == 1:
        return
    for _, linear, fan_in_grows, fan_out_grows in linears(stack):
        if fan_in_grows:
            linear.bias.mul_(math.sqrt(multiplier))
            if not fan_out_grows:
                linear.weight.mul_(math.sqrt(multiplier))


def learning_rate_scales(model: nn.Module) -> dict[str, float]:
    """Return the factor on Adam's learning rate for each parameter name of a FlowMo; 1 without a base width."""
    scales = {name: 1.0 for name, _ in model.named_parameters()}
    for side in ("encoder", "decoder"):
        multiplier = getattr(model.config, side).width_multiplier
        for name, _, fan_in_grows, fan_out_grows in linears(getattr(model, side)):
            if fan_in_grows and fan_out_grows:
                scales[f"{side}.{name}.weight"] = 1 / multiplier
    return scales
