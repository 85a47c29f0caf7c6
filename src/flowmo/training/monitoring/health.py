"""How a run does: means of the loss terms, norms, use of the code, speed (what the log lines say)."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ...quantize.usage import bit_usage
from ..optimization.state import TrainState
from ..processes.distributed import World, local, norms


def gradient_norm(state: TrainState) -> Tensor:
    """Return the norm of the whole gradient, a scalar on the device; the same in every process."""
    gradients = [p.grad for p in state.trained if p.grad is not None]
    return torch.stack(norms(gradients)).norm() if gradients else torch.zeros((), device=state.trained[0].device)


def clip_gradient(state: TrainState, norm: Tensor, largest: float) -> None:
    """Scale the gradient down to ``largest`` where its ``norm`` is above that."""
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    gradients = [local(p.grad) for p in state.trained if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)  # one kernel for many of them on a GPU


def parameter_norm(state: TrainState) -> float:
    """Return the norm of all weights that train."""
    return float(torch.stack(norms([p.detach() for p in state.trained])).norm())


class Meter:
    """Means over the steps since the last line of the log.

    Its sums go into checkpoints, so that a resumed run writes the lines that an uninterrupted one writes. Its clock
    does not.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Begin the means of the next line of the log."""
        self.sums.clear()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measure speed from now on, after something else took time."""
        self.began, self.images, self.waited = time.monotonic(), 0, 0.0

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the terms of one step, scalars or ``bit_share`` (see ``ModeMatchingLoss``)."""
        for name, value in (terms | {"steps": torch.ones(())}).items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()

    def state(self, world: World) -> dict[str, Tensor]:
        """Return the sums, averaged over the processes, as they are stored. Every process must ask."""
        return {name: world.average(value).cpu() for name, value in self.sums.items()}

    def means(self, world: World) -> dict[str, float]:
        """Return the means of the scalars, and how much the bits of the code are used.

        The latter are the mean entropy of a bit, and the share of the bits that never flip. Every process must call it.
        """
        sums = {name: world.average(value) for name, value in self.sums.items()}
        count = float(sums.pop("steps", torch.ones(())))
        share = sums.pop("bit_share", None)
        numbers = {name: float(value) / count for name, value in sums.items()}
        if share is not None:
            usage = bit_usage(share / count)
            numbers |= {"bit_entropy": usage.entropy, "bits_never_flip": usage.never_flip}
        return numbers

    def speed(self, state: TrainState, images: int) -> dict[str, float]:
        """Return images per second over all processes, the share of the time spent waiting for data, and hours to go.

        images: of the whole run.
        """
        seconds = max(time.monotonic() - self.began, 1e-9)
        rate = max(self.images / seconds, 1e-9)
        return {
            "images_per_s": rate,
            "data_wait": self.waited / seconds,
            "hours_left": (images - state.images_seen) / rate / 3600,
        }
