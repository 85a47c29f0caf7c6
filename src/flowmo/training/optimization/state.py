"""What a run consists of between two updates, by name: weights, their EMA, moments, and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..configuration.run_config import RunConfig
from ..processes.distributed import block_matrices
from .ema import EMA, WeightNormalization
from .muon import Muon


@dataclass
class TrainState:
    """A model in training, with all that its next update depends on."""

    model: nn.Module  # holds the raw weights
    ema: EMA  # of those weights
    normalization: WeightNormalization | None  # None in a run without
    optimizer: torch.optim.Optimizer  # holds the moments
    step: int = 0  # updates tried; all randomness follows from it, the position and the seed
    images_seen: int = 0  # the position in the data too
    skipped: int = 0  # updates that changed nothing, because a number was not finite
    broken_images: int = 0  # images that could not be read, for which others stood in

    @classmethod
    def start(
        cls, model: nn.Module, config: RunConfig, learning_rate_scales: Mapping[str, float] | None = None
    ) -> TrainState:
        """Return fresh moments and EMA around a model, of the parameters that train. Adam as published: no decay (A12).

        learning_rate_scales: by parameter name, 1 where there is none.
        """
        return cls(
            model,
            EMA(model),
            WeightNormalization(model) if config.weight_normalization else None,
            _optimizer(model, config, learning_rate_scales or {}),
        )

    @property
    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer moves."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def tensors(self, moments: bool = True) -> dict[str, Tensor]:
        """Return every tensor of the state by name, sharded as the model is; writing into them changes the state.

        moments: with those of the optimizer, which are made (zero) where no update has made them yet.
        """
        named = {name: p.detach() for name, p in self.model.named_parameters()}
        found = {f"model.{name}": tensor for name, tensor in named.items()}
        found |= {f"average.{name}": tensor for name, tensor in self.ema.weights.items()}
        if self.normalization:
            found |= {f"norm.{name}": norm for name, norm in self.normalization.norms.items()}
        if moments:
            names = {id(p): name for name, p in self.model.named_parameters()}
            for parameter in self.trained:
                for kind, tensor in self._moments(parameter).items():
                    found[f"optimizer.{names[id(parameter)]}.{kind}"] = tensor
        return found

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if isinstance(self.optimizer, Muon) and (momentum := self.optimizer.moments(parameter)) is not None:
            return momentum
        state = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter.detach())
            state["exp_avg_sq"] = torch.zeros_like(parameter.detach())
        return state


def _optimizer(model: nn.Module, config: RunConfig, scales: Mapping[str, float]) -> torch.optim.Optimizer:
    """Return Adam, or Muon with Adam, in groups of equal factors on the learning rate."""
    inside = set(block_matrices(model)) if config.optimizer == "muon" else set()
    groups: dict[bool, dict[float, list[nn.Parameter]]] = {True: {}, False: {}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name in inside].setdefault(scales.get(name, 1.0), []).append(parameter)
    matrices, others = (
        [{"params": parameters, "scale": scale} for scale, parameters in groups[kind].items()] for kind in (True, False)
    )
    if matrices:
        return Muon(matrices, others, lr=config.learning_rate, betas=config.betas)
    return torch.optim.Adam(others, lr=config.learning_rate, betas=config.betas, fused=True)
