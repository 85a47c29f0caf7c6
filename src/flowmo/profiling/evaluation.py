"""How long reconstructing a data set takes, from the operations of the passes (Section 4.1)."""

from __future__ import annotations

from typing import NamedTuple

from ..config import FlowMoConfig
from ..flow import function_evaluations
from .flops import flops_per_image


class EvaluationPlan(NamedTuple):
    """passes: of the decoder for one image. flops_per_image: of the encoder's pass and all of those. seconds: of one
    GPU for all images."""

    passes: int
    flops_per_image: int
    seconds: float


def evaluation_plan(config: FlowMoConfig, images: int, flops: float, utilisation: float) -> EvaluationPlan:
    """Return what ``images`` reconstructions by ``config.sampler`` take on a GPU of ``flops`` FLOP/s, of which a share
    ``utilisation`` is reached."""
    cost, passes = flops_per_image(config, None), function_evaluations(config.sampler)
    each = cost.encoder + passes * cost.decoder
    return EvaluationPlan(passes, each, images * each / (flops * utilisation))
