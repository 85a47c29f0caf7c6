"""After each update: forced weight normalisation and the moving average of the weights (Section 4.1; A15, A16)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..tokenizer import FlowMo


class WeightNormalization:
    """Keeps every linear weight inside the blocks at its own initial Frobenius norm, whole matrix by whole matrix,
    after EDM2: against growing weights and activations. Biases are left alone (A15)."""

    def __init__(self, model: FlowMo) -> None:
        self.weights = [
            module.weight
            for stack in (model.encoder, model.decoder)
            for module in stack.blocks.modules()
            if isinstance(module, nn.Linear)
        ]
        self.norms = [weight.detach().norm() for weight in self.weights]

    @torch.no_grad()
    def apply(self) -> None:
        current = torch._foreach_norm(self.weights)
        torch._foreach_mul_(self.weights, torch._foreach_div(self.norms, current))


class MovingAverage:
    """Exponential moving average of a model's parameters, in float32."""

    def __init__(self, model: nn.Module) -> None:
        self.source = dict(model.named_parameters())
        self.average: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.source.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        torch._foreach_lerp_(list(self.average.values()), list(self.source.values()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange model and average, to look at the averaged model; call again to go back."""
        for name, p in self.source.items():
            kept = p.detach().clone()
            p.copy_(self.average[name])
            self.average[name].copy_(kept)
