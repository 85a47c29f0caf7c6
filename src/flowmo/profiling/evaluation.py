"""The time that reconstructing a data set takes follows from the operations of the passes (Section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..config import FlowMoConfig
from ..flow import function_evaluations
from .flops import flops_per_image


class EvaluationPlan(NamedTuple):
    """What reconstructing a data set takes."""

    passes: int  # of the decoder for one image
    flops_per_image: int  # operations of the encoder's pass and of all those of the decoder
    seconds: float  # of one GPU for all images

    def rows(self, gpus: Sequence[int]) -> list[dict[str, Any]]:
        """Return the time by each number of GPUs, and whether it is less than an hour, as JSON data."""
        seconds = {count: self.seconds / count for count in gpus}
        return [{"gpus": count, "seconds": taken, "hour": taken < 3600} for count, taken in seconds.items()]


def evaluation_plan(config: FlowMoConfig, images: int, flops: float, utilisation: float) -> EvaluationPlan:
    """Return what ``images`` reconstructions by ``config.sampler`` take on one GPU.

    flops: the GPU's FLOP/s.
    utilisation: the share of them that is reached.
    """
    cost, nfe = flops_per_image(config, None), function_evaluations(config.sampler)
    each = cost.encoder + nfe * cost.decoder
    return EvaluationPlan(nfe, each, images * each / (flops * utilisation))
