"""What a sampler costs (Section 3.4, Appendix B)."""

from __future__ import annotations

from ..config import SamplerConfig
from .grids import shifted_grid
from .guidance import Guidance


def decoder_passes(sampler: SamplerConfig) -> int:
    """Passes of the decoder that an image takes: 31 with the paper's sampler."""
    guidance = Guidance(sampler.guidance_scale, sampler.guidance_interval)
    return guidance.passes(shifted_grid(sampler.num_steps, sampler.rho))
