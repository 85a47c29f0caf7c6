"""What follows each update: forced weight normalisation, and the EMA of the weights (Section 4.1; A15, A16).

EMA is the exponential moving average.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..processes.distributed import block_matrices, local, norms


class WeightNormalization:
    """Keeps every linear weight inside the blocks at its own initial Frobenius norm, whole matrix by whole matrix.

    It is EDM2's, against growing weights and activations. Biases and frozen weights are left alone (A15).
    """

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: weight for name, weight in block_matrices(model).items() if weight.requires_grad}
        self.norms = dict(zip(self.weights, norms([w.detach() for w in self.weights.values()]), strict=True))

    @torch.no_grad()
    def apply(self, skipped: Tensor | None = None) -> None:
        """Bring every weight back to its norm. skipped: 1, on the device, where this step is to change nothing."""
        weights = [weight.detach() for weight in self.weights.values()]
        if weights:
            ratios = list(torch._foreach_div(list(self.norms.values()), norms(weights)))
            if skipped is not None:
                ratios = [torch.where(skipped > 0, 1.0, ratio) for ratio in ratios]
            torch._foreach_mul_([local(weight) for weight in weights], ratios)


class EMA:
    """The exponential moving average of a model's parameters, in float32; sharded like them."""

    def __init__(self, model: nn.Module) -> None:
        self.source = dict(model.named_parameters())
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.source.items()}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move the average a share 1 - ``decay`` of the way to the parameters."""
        average = [local(mean) for mean in self.weights.values()]
        torch._foreach_lerp_(average, [local(p.detach()) for p in self.source.values()], 1 - decay)
        for mean, parameter in zip(average, self.source.values(), strict=True):
            if not parameter.requires_grad:  # to the bit, for the fingerprint: above, a -0 becomes a 0
                weight = local(parameter.detach())
                mean.copy_(torch.where(mean == weight, weight, mean))
