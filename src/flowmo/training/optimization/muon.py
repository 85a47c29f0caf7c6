"""Muon for the matrices inside the blocks, Adam for everything else; not in the paper (O16).

Muon (Jordan et al., 2024) keeps one momentum and moves a matrix along its nearest semi-orthogonal one, so that every
direction of a layer learns at the same speed. The step is as large as Adam's usually is, so one learning rate serves
both (Liu et al., 2025). ``torch.optim.Muon`` orthogonalises in bfloat16, which many processors only emulate; here it is
float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration: singular values from 0.01 to 1 end between 0.7 and 1.2."""
ITERATIONS = 5
ADAM_SIZE = 0.2
"""Root mean square of Adam's usual update, in units of the learning rate."""


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return, nearly, the semi-orthogonal matrix nearest to ``matrix``, M N, in float32 (U V^T of its U S V^T)."""
    a, b, c = COEFFICIENTS
    x = matrix.float()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """One optimizer that moves ``matrices`` by Muon, with Nesterov momentum and no decay, and ``others`` by Adam.

    As with Adam's fused kernel, a step where the attribute ``found_inf`` is above 0 changes nothing.
    """

    def __init__(
        self,
        matrices: Iterable[dict[str, Any]],
        others: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})
        self.matrix_groups = list(self.param_groups)
        rest = list(others)
        self.adam = torch.optim.Adam(rest, lr=lr, betas=betas, fused=True) if rest else None
        if self.adam is not None:
            self.param_groups.extend(self.adam.param_groups)
            self.adam.state = self.state
        self.found_inf: Tensor | None = None

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor] | None:
        """Return the momentum of a matrix, made (zero) where no step has made it; None for Adam's parameters."""
        if not any(parameter is other for group in self.matrix_groups for other in group["params"]):
            return None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter.detach())
        return state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move all parameters by their gradients. There is no closure."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.matrix_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["momentum"])
        if self.adam is not None:
            self.adam.found_inf = self.found_inf  # type: ignore[attr-defined]
            self.adam.step()

    def _move(self, parameter: nn.Parameter, rate: float, share: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = share * state["momentum"] + parameter.grad
        size = ADAM_SIZE * math.sqrt(max(parameter.shape))
        moved = parameter - rate * size * orthogonalized(share * momentum + parameter.grad)
        if self.found_inf is not None:
            skipped = self.found_inf > 0
            momentum = torch.where(skipped, state["momentum"], momentum)
            moved = torch.where(skipped, parameter, moved)
        state["momentum"].copy_(momentum)
        parameter.copy_(moved)
