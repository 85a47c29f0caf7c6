"""Classifier-free guidance in a limited interval of noise levels (Section 3.4, Appendix B; E1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..config import SamplerConfig
from .grids import shifted_grid

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t, t) -> v; t is (B,)."""


def level_from_sigma(sigma: float) -> float:
    """Return a noise level of the EDM convention, x + sigma n, as rectified-flow t = sigma / (1 + sigma)."""
    return sigma / (1 + sigma)


PAPER_INTERVAL = SamplerConfig.guidance_interval


@dataclass(frozen=True)
class Guidance:
    """The guidance of a sampler: v_null + scale (v - v_null) in an interval of noise levels, plain v elsewhere."""

    scale: float = 1.5  # 1 asks for no null pass
    interval: tuple[float, float] = PAPER_INTERVAL  # (low, high) in t, both included

    @classmethod
    def of(cls, sampler: SamplerConfig) -> Guidance:
        """Return the guidance of a sampler."""
        return cls(sampler.guidance_scale, sampler.guidance_interval)

    def acts(self, t: float) -> bool:
        """Return whether the velocity at noise level t is guided."""
        return self.scale != 1.0 and self.interval[0] <= t <= self.interval[1]

    def combine(self, v: Tensor, v_null: Tensor) -> Tensor:
        """Return v_null + scale (v - v_null)."""
        return v_null.lerp(v, self.scale)

    def __call__(self, conditional: Velocity, null: Velocity) -> Velocity:
        """Return the guided velocity of two velocities, functions of (x_t, t) whose t is the same for a batch."""

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            v = conditional(x_t, t)
            if not t.numel() or not self.acts(float(t.flatten()[0])):
                return v
            return self.combine(v, null(x_t, t))

        return velocity


def idle_guidance(sampler: SamplerConfig) -> str | None:
    """Return in words, its scale first, why the guidance of a sampler changes nothing; None where it acts at a step."""
    guidance = Guidance.of(sampler)
    levels = shifted_grid(sampler.num_steps, sampler.rho)[:-1].tolist()
    if guidance.scale == 1 or any(map(guidance.acts, levels)):
        return None
    low, high = guidance.interval
    return (
        f"{guidance.scale:g} changes nothing: it acts between the noise levels {low:.2f} and {high:.2f}, where none of "
        f"this decoder's {len(levels)} steps begins; ask for more steps"
    )
